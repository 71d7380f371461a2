"""Qwen3-MoE in graph mode against Transformers."""

from __future__ import annotations

from typing import Any

import pytest

from msmodels.parity import Fault, ParityTests, Variant, layers

pytestmark = pytest.mark.reference

MOE: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "head_dim": 20,
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 56,
}
VARIANTS = {
    "30b-a3b": Variant({**MOE, "norm_topk_prob": True}, full=5.6e-7, cached=5.1e-7),
    "dense-layers-and-a-window": Variant(
        {
            **MOE,
            "norm_topk_prob": False,
            "num_hidden_layers": 4,
            "decoder_sparse_step": 2,  # layers 1 and 3 have experts
            "mlp_only_layers": [3],
            "attention_bias": True,
            "use_sliding_window": True,
            "sliding_window": 12,
        },
        full=7.1e-7,
        cached=5.9e-7,
    ),
}


def set_normalize(layer: int, normalize: bool) -> Any:
    def change(model: Any) -> None:
        layers(model)[layer].mlp.normalize = normalize

    return change


FAULTS = {
    "shares-not-renormalised": Fault("30b-a3b", set_normalize(0, False)),
    "shares-renormalised": Fault("dense-layers-and-a-window", set_normalize(1, True)),
}


class TestQwen3Moe(ParityTests):
    pass
