"""What a model needs in memory before it has run: weights, caches, and the room to compile and compute in."""

from __future__ import annotations

from dataclasses import dataclass, replace

from msport.architectures import ARCHITECTURES, ModelConfig
from msport.architectures.gpt_oss import GptOssConfig
from msport.msmodels.costs import Costs

PREFILL_CHUNK = 128

# MindSpore, NumPy and Python themselves with both graphs of a small model: 560 MB were measured.
RUNTIME_NBYTES = 6 * 10**8

# What compiling both graphs adds for each layer and stays. In float16 the CPU's products keep copies of their own.
LAYER_NBYTES = {"float32": 5 * 10**6, "bfloat16": 5 * 10**6, "float16": 8 * 10**7}

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
    def of(cls, costs: Costs, max_length: int, batch: int, *, portable: bool = False) -> Need:
        """What the model of `costs` needs for `batch` sequences of `max_length` positions.

        `portable` counts the scores of a chunk with all positions, which MSPORT_OPS=portable and Ascend hold; the CPU's
        own kernels do not.
        """
        chunk = min(PREFILL_CHUNK, max_length)
        config, rows = costs.config, batch * chunk
        wide = max(_width(name, shape, costs) for name, shape in _shapes(costs))
        activations = rows * (_HIDDEN_COPIES * config.hidden_size + _WIDE_COPIES * wide) + 2 * batch * config.vocab_size
        scores = 2 * rows * config.num_attention_heads * max_length if portable else 0
        return cls(
            costs.weight_bytes,
            costs.cache_bytes(max_length, batch, chunk),
            RUNTIME_NBYTES
            + config.num_hidden_layers * LAYER_NBYTES[costs.dtype]
            + _ACTIVATION_SIZE * (activations + scores),
        )


def make_costs(config: ModelConfig, dtype: str, *, packed: bool) -> Costs:
    """The costs of `config` in `dtype`; `packed` experts, where the family has them, stay MXFP4 in memory."""
    if packed and isinstance(config, GptOssConfig):
        config = replace(config, packed_experts=True)
    return Costs(config, dtype)


def longest_that_fits(costs: Costs, most: int, batch: int, available: int, *, portable: bool = False) -> int:
    """The largest `max_length` up to `most` that needs at most `available` bytes; 0 if none does."""
    shortest, beyond = 0, most + 1
    while beyond - shortest > 1:
        middle = (shortest + beyond) // 2
        if Need.of(costs, middle, batch, portable=portable).total <= available:
            shortest = middle
        else:
            beyond = middle
    return shortest


def largest_batch_that_fits(costs: Costs, max_length: int, most: int, available: int, *, portable: bool = False) -> int:
    """The largest batch up to `most` of `max_length` positions that needs at most `available` bytes; 0 if none."""
    fitting = (
        batch for batch in range(most, 0, -1) if Need.of(costs, max_length, batch, portable=portable).total <= available
    )
    return next(fitting, 0)


def _shapes(costs: Costs) -> list[tuple[str, tuple[int, ...]]]:
    rows = ARCHITECTURES[costs.config.architecture].weights(costs.config)
    return [(row.name, row.shape) for row in rows if "embed_tokens" not in row.name and "lm_head" not in row.name]


def _width(name: str, shape: tuple[int, ...], costs: Costs) -> int:
    """Elements that multiplying one token with this weight makes; one token multiplies with several experts."""
    if ".experts." in name and len(shape) > 2:
        width = shape[1] if name.endswith("_blocks") else shape[2]  # packed rows are [out, in], others [in, out]
        return width * int(getattr(costs.config, "num_experts_per_tok", 1))
    return shape[0]
