"""Transformers and msport side by side.

A tiny random Transformers model is saved as the Hub has it, converted and loaded; both then see the same tokens. The
weights are drawn so that every feature of a family moves the logits by far more than the tolerance, and yet so that
Transformers' own float32 stays within 1.3e-6 of its float64: what is measured is msport, not conditioning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport import convert_checkpoint, load_model
from msport.checkpoint import dtypes, open_checkpoint
from msport.msmodels import LanguageModel
from msport.msmodels.layers.rope import RotaryEmbedding
from msport.msmodels.weights import place_weights
from msport.native import library
from msport.validate.compare.metrics import measure
from msport.validate.reference.loading import resolve_math_kernels

# What every family must reach at every token, relative L2 of the logits: in full passes, and in cached decoding.
FULL_LIMIT = 5e-6
CACHED_LIMIT = 1e-5

# Sizes of every family unless a variant says otherwise: no multiple of a vector, of a chunk or of each other.
SIZES = {
    "vocab_size": 199,
    "hidden_size": 72,
    "intermediate_size": 104,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": None,
}
CHUNK = 16

# Standard deviations of vectors, and of layers times the root of their inputs; the first pattern that fits holds.
_VECTORS = (("*norm.weight", 0.25), ("*.sinks", 1.5), ("*bias", 0.3))
_LAYERS = (
    ("*.[qk]_proj.weight", 1.2),
    ("*.gate.weight", 1.5),
    ("*.router.weight", 1.5),
    ("lm_head.weight", 1.0),
    ("*.o_proj.weight", 0.7),
    ("*.down_proj*", 0.7),
    ("*.w2.weight", 0.7),
    ("*", 1.0),
)
# Of gpt-oss, a fiftieth of gate and up lies beyond the clamp at 7, and what comes out of it is large.
_GPT_OSS_LAYERS = (("*.gate_up_proj", 3.0), ("*.down_proj", 0.1), *_LAYERS)

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A config, as what differs from `SIZES`, and the largest errors measured with it: full passes, cached decoding."""

    config: Config
    full: float
    cached: float
    tokens: int = 100
    slow: bool = False

    @property
    def max_length(self) -> int:
        return self.tokens + 12


@dataclass(frozen=True)
class Fault:
    """What `change` does to a model of the named variant before its graphs are compiled."""

    variant: str
    change: Callable[[LanguageModel], None]


@dataclass(frozen=True)
class Pair:
    """The same weights in Transformers, in float32, and in msport, with the folders that they came from."""

    reference: Any
    model: LanguageModel
    hub: Path
    converted: Path

    @property
    def vocab_size(self) -> int:
        return self.model.config.vocab_size


def make_pair(folder: Path, variant: Variant) -> Pair:
    """A random checkpoint of `variant`, and both models that read it; msport's holds two sequences."""
    hub, converted = convert_random(folder, variant.config, "float32")
    model = load_model(converted, "float32", max_length=variant.max_length, batch_size=2, prefill_chunk=CHUNK)
    return Pair(load_reference(hub), model, hub, converted)


def convert_random(folder: Path, config: Config, dtype: str) -> tuple[Path, Path]:
    """A random checkpoint in `dtype` and its conversion to `dtype`, in two folders below `folder`."""
    hub, converted = folder / f"hub-{dtype}", folder / f"converted-{dtype}"
    save_random(hub, config, dtype)
    convert_checkpoint(hub, converted, dtype=dtype)
    return hub, converted


@contextmanager
def other_weights(pair: Pair, hub: Path, converted: Path) -> Iterator[Pair]:
    """`pair` with the weights of another checkpoint of its config, in the graphs that are compiled already."""
    _place(pair.model, converted)
    try:
        yield Pair(load_reference(hub), pair.model, hub, converted)
    finally:
        _place(pair.model, pair.converted)


def _place(model: LanguageModel, folder: Path) -> None:
    with open_checkpoint(folder) as checkpoint:
        place_weights(model.graphs.network, model.config, checkpoint, dtypes.FLOAT32)


def save_random(folder: Path, config: Config, dtype: str, seed: int = 0) -> None:
    """A Transformers model of `config`, which names its `model_type`, with random weights; saved by Transformers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**{**SIZES, **config}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            mean, deviation = _distribution(name, tuple(parameter.shape), model.config)
            parameter.copy_(mean + deviation * torch.randn(parameter.shape, generator=generator))
    model.to(getattr(torch, dtype)).save_pretrained(folder)


def _distribution(name: str, shape: tuple[int, ...], config: Any) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values."""
    family = config.model_type
    for pattern, deviation in _VECTORS:
        if fnmatchcase(name, pattern):
            return (1.0 if pattern == "*norm.weight" and family != "gemma2" else 0.0), deviation
    if name.endswith("embed_tokens.weight"):
        return 0.0, config.hidden_size**-0.5 if family == "gemma2" else 1.0  # Gemma2 scales them up
    inputs = shape[1] if family == "gpt_oss" else shape[-1]  # gpt-oss has its experts as [E, in, out]
    patterns = _GPT_OSS_LAYERS if family == "gpt_oss" else _LAYERS
    return 0.0, next(gain for pattern, gain in patterns if fnmatchcase(name, pattern)) * inputs**-0.5


def load_reference(folder: Path) -> Any:
    """The checkpoint in Transformers' eager implementation, its weights widened to float32."""
    import torch
    from transformers import AutoModelForCausalLM

    resolve_math_kernels()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval()


def reference_logits(reference: Any, ids: np.ndarray) -> np.ndarray:
    """Transformers' logits of one prompt, ``[seq, vocab]``: a single pass, no cache."""
    import torch

    with torch.inference_mode():
        logits: np.ndarray = reference(torch.from_numpy(ids)[None], use_cache=False).logits[0].numpy()
    return logits


def random_prompts(pair: Pair, tokens: int, seed: int) -> np.ndarray:
    """Two prompts, ``[2, tokens]``."""
    return np.random.default_rng(seed).integers(0, pair.vocab_size, (2, tokens))


def full_error(pair: Pair, tokens: int) -> float:
    """The largest relative L2 error of any token of two prompts; msport runs them in chunks."""
    prompts = random_prompts(pair, tokens, seed=0)
    logits = pair.model.logits(prompts)
    return max(worst(reference_logits(pair.reference, ids), ours) for ids, ours in zip(prompts, logits, strict=True))


def cached_error(pair: Pair, tokens: int) -> float:
    """The largest relative L2 error of any token decoded one by one after two prompts of different lengths.

    Neither prompt fills its last chunk. Decoding goes on until the longer sequence has `tokens`.
    """
    prompts = random_prompts(pair, tokens, seed=1)
    lengths = (CHUNK // 2 + 1, 2 * CHUNK + 5)
    steps = tokens - max(lengths)
    logits = [pair.model.prefill([ids[:length] for ids, length in zip(prompts, lengths, strict=True)])]
    logits += [pair.model.decode([prompts[row, lengths[row] + step] for row in (0, 1)]) for step in range(steps)]
    ours = np.stack(logits, axis=1)  # [2, steps + 1, vocab]
    return max(
        worst(reference_logits(pair.reference, prompts[row])[lengths[row] - 1 :][: steps + 1], ours[row])
        for row in (0, 1)
    )


def worst(reference: np.ndarray, ours: np.ndarray) -> float:
    return float(measure(reference, ours).relative_l2.max())


def layers(model: LanguageModel) -> list[Any]:
    """The decoder layers of the network, to put faults into."""
    return list(model.graphs.network.model.layers)


def change_rope(model: LanguageModel, **parameters: Any) -> None:
    """Gives the network other RoPE parameters than its config has."""
    rope = replace(model.config.rope, **parameters)
    rotary = RotaryEmbedding(rope, model.config.head_dim, model.graphs.cache.context)
    model.graphs.network.model.rotary_emb = rotary


def change_windows(model: LanguageModel, *windows: int | None) -> None:
    """Gives the network's distinct windows, in order of appearance, other lengths; the caches stay as they are."""
    model.graphs.network.model.windows = windows


def check(name: str, error: float, measured: float, limit: float) -> None:
    """Prints the error, which may be twice the `measured` one and never more than `limit`."""
    print(f"{name}: relative L2 error {error:.1e} (written down: {measured:.1e})")
    assert error <= min(2 * measured, limit)


class ParityTests:
    """What every family must pass; a subclass per family lives beside its VARIANTS and FAULTS (see conftest.py)."""

    def test_logits_are_those_of_transformers_in_chunks_past_every_window(self, variant: Variant, pair: Pair) -> None:
        check("full", full_error(pair, variant.tokens), variant.full, FULL_LIMIT)

    def test_cached_decoding_after_prompts_of_different_lengths_is_a_full_pass(
        self, variant: Variant, pair: Pair
    ) -> None:
        check("cached", cached_error(pair, variant.tokens), variant.cached, CACHED_LIMIT)

    def test_bfloat16_checkpoints_give_the_logits_of_the_same_weights_widened(
        self, variant: Variant, pair: Pair, tmp_path: Path
    ) -> None:
        with other_weights(pair, *convert_random(tmp_path, variant.config, "bfloat16")) as rounded:
            check("bfloat16", full_error(rounded, variant.tokens), variant.full, FULL_LIMIT)

    @pytest.mark.slow
    def test_bfloat16_weights_are_multiplied_as_they_lie(self, variant: Variant, tmp_path: Path) -> None:
        hub, converted = convert_random(tmp_path, variant.config, "bfloat16")
        model = load_model(converted, max_length=variant.max_length, batch_size=2, prefill_chunk=CHUNK)
        if model.operators == "cpu" and library() is not None:
            assert model.costs.storage == ("bfloat16",)
        pair = Pair(load_reference(hub), model, hub, converted)
        check("bfloat16, full", full_error(pair, variant.tokens), variant.full, FULL_LIMIT)
        check("bfloat16, cached", cached_error(pair, variant.tokens), variant.cached, CACHED_LIMIT)

    @pytest.mark.slow
    def test_the_portable_operators_mean_the_same(
        self, variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MSPORT_OPS", "portable")
        pair = make_pair(tmp_path, variant)
        assert pair.model.operators == "portable"
        check("portable, full", full_error(pair, variant.tokens), variant.full, FULL_LIMIT)
        check("portable, cached", cached_error(pair, variant.tokens), variant.cached, CACHED_LIMIT)

    def test_a_fault_in_the_network_shows(self, fault: Fault, variants: Mapping[str, Variant], tmp_path: Path) -> None:
        variant = variants[fault.variant]
        pair = make_pair(tmp_path, variant)
        fault.change(pair.model)
        error = full_error(pair, variant.tokens)
        print(f"faulty: relative L2 error {error:.1e}")
        assert error > 1000 * FULL_LIMIT
