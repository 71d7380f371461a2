"""Qwen3, dense, in graph mode against Transformers."""

from __future__ import annotations

import pytest

from msmodels.parity import Fault, ParityTests, Variant, layers
from msport.msmodels import LanguageModel

pytestmark = pytest.mark.reference

VARIANTS = {
    "4b": Variant({"model_type": "qwen3", "head_dim": 20, "tie_word_embeddings": True}, full=4.4e-7, cached=4.0e-7),
    "with-biases-and-windows-from-layer-1-on": Variant(
        {
            "model_type": "qwen3",
            "head_dim": 8,
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 12,
            "max_window_layers": 1,
        },
        full=6.8e-7,
        cached=4.8e-7,
    ),
}


def drop_the_head_norms(model: LanguageModel) -> None:
    layers(model)[0].self_attn.q_norm = None


def swap_the_head_norms(model: LanguageModel) -> None:
    attention = layers(model)[1].self_attn
    attention.q_norm, attention.k_norm = attention.k_norm, attention.q_norm


FAULTS = {
    "head-norms-dropped": Fault("4b", drop_the_head_norms),
    "head-norms-swapped": Fault("4b", swap_the_head_norms),
}


class TestQwen3(ParityTests):
    pass
