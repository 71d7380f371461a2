"""What a model needs in memory before it has run: weights, caches, and the room to compile and compute in."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, replace

from msport.architectures import ARCHITECTURES, ModelConfig
from msport.architectures.gpt_oss import GptOssConfig
from msport.msmodels.costs import Costs

PREFILL_CHUNK = 128

# MindSpore, NumPy and Python themselves with both graphs of a small model, and what each layer's graphs add and keep:
# 560 MB and 4 MB were measured on the CPU.
RUNTIME_NBYTES = 6 * 10**8
LAYER_NBYTES = 5 * 10**6

# In float16 on the CPU processes held up to twice the weights more, and 20 to 50 MB for each layer: as if the products
# kept float32 copies. This is the most that models of 2 to 16 layers took.
HALF_RUNTIME_NBYTES = 7 * 10**8
HALF_LAYER_NBYTES = 5 * 10**7
_HALF_COPIES = 2

# Activations are computed in float32 or kept beside their cast.
_ACTIVATION_SIZE = 4

# Copies of a chunk's hidden states, and of its widest activation, that are alive together.
_HIDDEN_COPIES = 6
_WIDE_COPIES = 4


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that a loaded model takes: `weights`, `caches`, and the `workspace` of runtime, graphs and activations."""

    weights: int
    caches: int
    workspace: int

    @property
    def total(self) -> int:
        return self.weights + self.caches + self.workspace

    @classmethod
    def of(cls, costs: Costs, max_length: int, batch: int, *, scores: bool = False, on_device: bool = False) -> Need:
        """What the model of `costs` needs for `batch` sequences of `max_length` positions.

        `scores`: attention holds those of a chunk with all positions, as the portable one does; the CPU's own kernels
        and the fused ones of Ascend do not. `on_device`: not on the CPU.
        """
        chunk = min(PREFILL_CHUNK, max_length)
        config, rows = costs.config, batch * chunk
        wide = max(_width(name, shape, costs) for name, shape in _shapes(costs))
        activations = rows * (_HIDDEN_COPIES * config.hidden_size + _WIDE_COPIES * wide) + 2 * batch * config.vocab_size
        if scores:
            activations += 2 * rows * config.num_attention_heads * max_length
        fixed = RUNTIME_NBYTES + config.num_hidden_layers * LAYER_NBYTES
        if costs.dtype == "float16" and not on_device:
            fixed = HALF_RUNTIME_NBYTES + config.num_hidden_layers * HALF_LAYER_NBYTES
            fixed += _HALF_COPIES * costs.weight_bytes
        caches = costs.cache_bytes(max_length, batch, chunk)
        return cls(costs.weight_bytes, caches, fixed + _ACTIVATION_SIZE * activations)


def holds_scores(config: ModelConfig, *, portable: bool, on_device: bool) -> bool:
    """Whether attention holds its scores: the portable one does, and a device's fused one knows no soft-cap."""
    return portable or (on_device and getattr(config, "attn_logit_softcapping", None) is not None)


def make_costs(config: ModelConfig, dtype: str, *, packed: bool) -> Costs:
    """The costs of `config` in `dtype`; `packed` experts, where the family has them, stay MXFP4 in memory."""
    if packed and isinstance(config, GptOssConfig):
        config = replace(config, packed_experts=True)
    return Costs(config, dtype)


def most_that_fits(needed: Callable[[int], int], most: int, available: int) -> int:
    """The largest number up to `most` whose bytes `needed`, which grow with it, are `available`; 0 if none."""
    return bisect_right(range(1, most + 1), available, key=needed)


def _shapes(costs: Costs) -> list[tuple[str, tuple[int, ...]]]:
    rows = ARCHITECTURES[costs.config.architecture].weights(costs.config)
    return [(row.name, row.shape) for row in rows if "embed_tokens" not in row.name and "lm_head" not in row.name]


def _width(name: str, shape: tuple[int, ...], costs: Costs) -> int:
    """Elements that multiplying one token with this weight makes; one token multiplies with several experts."""
    if ".experts." in name and len(shape) > 2:
        width = shape[1] if name.endswith("_blocks") else shape[2]  # packed rows are [out, in], others [in, out]
        return width * int(getattr(costs.config, "num_experts_per_tok", 1))
    return shape[0]
