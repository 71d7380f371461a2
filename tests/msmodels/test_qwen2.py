"""Qwen2 and Qwen2.5 in graph mode against Transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from mindspore.ops import zeros_like

from msmodels.parity import Fault, ParityTests, Variant, change_rope, change_windows, layers, save_random
from msport import convert_checkpoint
from msport.checkpoint import open_checkpoint
from msport.convert.plan import make_plan
from msport.msmodels import LanguageModel

pytestmark = pytest.mark.reference

VARIANTS = {
    "7b": Variant({"model_type": "qwen2"}, full=5.3e-7, cached=5.4e-7),
    "tied-with-yarn-and-windows-from-layer-1-on": Variant(
        {
            "model_type": "qwen2",
            "tie_word_embeddings": True,
            "use_sliding_window": True,
            "sliding_window": 12,
            "max_window_layers": 1,
            "rope_theta": 1000000.0,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        },
        full=6.2e-7,
        cached=5.9e-7,
    ),
}


def drop_the_query_bias(model: LanguageModel) -> None:
    bias = layers(model)[1].self_attn.q_proj.bias
    bias.set_data(zeros_like(bias))


YARN = "tied-with-yarn-and-windows-from-layer-1-on"
FAULTS = {
    "window-in-every-layer": Fault(YARN, lambda model: change_windows(model, 12, 12)),
    "yarn-bounds-not-rounded": Fault(YARN, lambda model: change_rope(model, truncate=False)),
    "yarn-without-its-factor-on-cos-and-sin": Fault(YARN, lambda model: change_rope(model, attention_factor=1.0)),
    "query-bias-dropped": Fault("7b", drop_the_query_bias),
}


class TestQwen2(ParityTests):
    pass


def test_a_head_that_is_shipped_beside_the_embedding_it_is_tied_to_is_dropped_by_name(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from safetensors.numpy import load_file, save_file

    hub = tmp_path / "hub"
    save_random(hub, VARIANTS[YARN].config, "float32")
    tensors = load_file(hub / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    save_file(tensors, hub / "model.safetensors", {"format": "pt"})
    with open_checkpoint(hub) as checkpoint:
        dropped = make_plan(checkpoint).dropped
    assert [row.name for row in dropped] == ["lm_head.weight"]
    convert_checkpoint(hub, tmp_path / "converted")
    with open_checkpoint(tmp_path / "converted") as converted:
        assert set(converted.tensors) == set(tensors) - {"lm_head.weight"}
