"""Rotary frequencies against Transformers', which computes them in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.architectures import ARCHITECTURES
from msport.msmodels.layers.rope import attention_factor, inverse_frequencies

pytestmark = pytest.mark.reference

# The most that one rounding to float32 moves a value, relative to it.
ROUNDING = 2.0**-24
# By how many roundings both sides together may differ. The power is rounded once here and may be off by a whole unit in
# the last place in torch, whose power depends on the processor: 1 + 2. Each later step rounds on both sides: a
# reciprocal makes 5, a division by the factor 7, YaRN's blend of both 11. llama3 makes of the 7 of a wavelength a share
# that it stretches by 4 / (4 - 2) or less, and blends with it: 33, and relative to what is blended.
ROUNDINGS = {"default": 5, "linear": 7, "yarn": 11, "llama3": 33}

factors = st.sampled_from([1.0, 1.5, 4.0, 8.0, 32.0, 40.0])
lengths = st.sampled_from([64, 512, 4096, 8192, 32768])
yarn = st.fixed_dictionaries(
    {"rope_type": st.just("yarn"), "factor": factors, "original_max_position_embeddings": lengths},
    optional={
        "attention_factor": st.sampled_from([0.7, 1.0, 1.3]),
        "beta_fast": st.sampled_from([16.0, 32.0, 64.0]),
        "beta_slow": st.sampled_from([1.0, 2.0, 4.0]),
        "mscale": st.sampled_from([0.707, 1.0]),
        "mscale_all_dim": st.sampled_from([0.5, 1.0]),
        "truncate": st.booleans(),
    },
)
llama3 = st.fixed_dictionaries(
    {
        "rope_type": st.just("llama3"),
        "factor": factors,
        "low_freq_factor": st.sampled_from([1.0, 2.0]),
        "high_freq_factor": st.sampled_from([4.0, 8.0]),
        "original_max_position_embeddings": lengths,
    }
)
linear = st.fixed_dictionaries({"rope_type": st.just("linear"), "factor": factors})
variants = st.one_of(st.none(), st.just({"rope_type": "default"}), linear, yarn, llama3)


@settings(max_examples=100)
@given(
    scaling=variants,
    theta=st.sampled_from([1e4, 1e5, 150000.0, 5e5, 1e6, 5e6]),
    head_dim=st.sampled_from([8, 20, 64, 80, 96, 128, 256]),
)
def test_frequencies_and_their_factor_are_those_of_transformers(
    scaling: dict[str, Any] | None, theta: float, head_dim: int
) -> None:
    pytest.importorskip("transformers")
    config = _config(scaling, theta, head_dim)
    rope = ARCHITECTURES["LlamaForCausalLM"].parse(config, Path("config.json")).rope
    reference = _reference(config)
    ours, theirs = inverse_frequencies(rope, head_dim), reference.inv_freq.numpy()
    # llama3 blends f and f / factor, in a share that is a difference: its error is one of f, not of what is left.
    size = inverse_frequencies(replace(rope, rope_type="default"), head_dim) if rope.rope_type == "llama3" else theirs
    roundings = (np.abs(ours.astype(np.float64) - theirs) / size).max() / ROUNDING
    print(f"{rope.rope_type}: {roundings:.1f} roundings")
    assert roundings <= ROUNDINGS[rope.rope_type]
    assert attention_factor(rope) == pytest.approx(reference.attention_scaling, rel=1e-12)


def _config(scaling: dict[str, Any] | None, theta: float, head_dim: int) -> dict[str, Any]:
    return {
        "vocab_size": 8,
        "hidden_size": 2 * head_dim,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 65536,
        "rope_theta": theta,
        "rope_scaling": scaling,
    }


def _reference(config: dict[str, Any]) -> Any:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    scaling = config["rope_scaling"]
    return LlamaRotaryEmbedding(LlamaConfig(**{**config, "rope_scaling": scaling and dict(scaling)}))
