"""Gemma2 in graph mode against Transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore as ms
import pytest

from msmodels.parity import Fault, ParityTests, Variant, change_windows, layers
from msport.msmodels import LanguageModel
from msport.msmodels.gemma2 import embedding_scale

pytestmark = pytest.mark.reference

# Caps low enough that most scores and logits are bent by them, a query scale that is not that of head_dim.
GEMMA2: dict[str, Any] = {
    "model_type": "gemma2",
    "head_dim": 20,
    "sliding_window": 12,
    "query_pre_attn_scalar": 15,
    "attn_logit_softcapping": 4.0,
    "final_logit_softcapping": 2.0,
}
VARIANTS = {
    "2b": Variant(GEMMA2, full=1.0e-6, cached=1.0e-6),
    "untied-uncapped-full-first": Variant(
        {
            **GEMMA2,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "layer_types": ["full_attention", "sliding_attention"],
            "tie_word_embeddings": False,
            "attention_bias": True,
        },
        full=9.0e-7,
        cached=1.2e-6,
    ),
}


def in_layer_0(part: str, attribute: str, value: Any) -> Callable[[LanguageModel], None]:
    def change(model: LanguageModel) -> None:
        setattr(getattr(layers(model)[0], part), attribute, value)

    return change


def in_network(attribute: str, value: Any) -> Callable[[LanguageModel], None]:
    return lambda model: setattr(model.graphs.network, attribute, value)


def leave_embeddings_unscaled(model: LanguageModel) -> None:
    model.graphs.network.model.embedding_scale = 1


FAULTS = {
    "cap-on-scores-dropped": Fault("2b", in_layer_0("self_attn", "softcap", None)),
    "cap-on-logits-dropped": Fault("2b", in_network("softcap", None)),
    "one-plus-weight-forgotten": Fault("2b", in_layer_0("post_feedforward_layernorm", "unit_offset", False)),
    "query-scale-of-head-dim": Fault("2b", in_layer_0("self_attn", "scale", 20**-0.5)),
    "embeddings-not-scaled": Fault("2b", leave_embeddings_unscaled),
    "windows-in-the-other-layers": Fault("2b", lambda model: change_windows(model, None, 12)),
}


class TestGemma2(ParityTests):
    pass


@pytest.mark.parametrize(
    ("dtype", "scale_9b", "scale_27b"),
    [("float32", 3584**0.5, 4608**0.5), ("float16", 59.875, 67.875), ("bfloat16", 59.75, 68.0)],
)
def test_the_embedding_scale_is_rounded_to_the_dtype_of_the_model(
    dtype: str, scale_9b: float, scale_27b: float
) -> None:
    assert embedding_scale(3584, getattr(ms, dtype)) == pytest.approx(scale_9b, rel=1e-7)
    assert embedding_scale(4608, getattr(ms, dtype)) == pytest.approx(scale_27b, rel=1e-7)
