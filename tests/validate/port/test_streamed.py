"""One layer at a time gives the verdict of the model as a whole, in graphs that are compiled once a kind of layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msport.architectures import load_config
from msport.convert import convert_checkpoint
from msport.sample import write_sample
from msport.validate import validate_model
from msport.validate.operations import ATTENDED, CHOSEN, MLP_NORM, OUTPUT
from msport.validate.port.choice import choose_port
from msport.validate.port.streamed import Streamed
from validate.tampering import change_tensor

PROMPTS = [list(range(3, 203)), list(range(50, 60))]


@pytest.mark.reference
@pytest.mark.parametrize(
    "family",
    ["gpt-oss", *(pytest.param(name, marks=pytest.mark.slow) for name in ("Gemma2", "Mixtral", "Qwen3-MoE", "Qwen2"))],
)
def test_streaming_passes_where_the_whole_model_does(family: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    layers = 2 if family == "gpt-oss" else 4  # the others have windows from a layer on
    hub = write_sample(family, tmp_path / "hub", overrides={"num_hidden_layers": layers})
    convert_checkpoint(hub, tmp_path / "ms")
    report = validate_model(tmp_path / "ms", tol=1e-4, level="layers", stream=True, prompts=PROMPTS)
    print(report)
    assert report.passed
    assert report.setup.streamed
    assert [result.title for result in report.results] == [
        "prompt 1",
        "prompt 1, decode",
        "prompt 2",
        "prompt 2, decode",
    ]
    assert len(report.layers) == layers + 2
    assert "peak memory" in str(report)


@pytest.mark.reference
def test_a_fault_is_located_by_streaming_too(converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = change_tensor(converted, tmp_path / "ms", "model.layers.1.mlp.router.bias", lambda values: values * 0)
    report = validate_model(folder, level="layers", stream=True, prompts=PROMPTS[:1])
    assert report.departure is not None
    assert report.departure.first_operation is not None
    print(report)
    assert (report.departure.name, report.departure.first_operation.name) == ("layers.1", "router")
    assert "as of a bias" in report.departure.first_operation.how


def test_layers_that_differ_only_in_weights_share_a_graph_and_kinds_share_weights(tmp_path: Path) -> None:
    hub = write_sample("gpt-oss", tmp_path / "hub", overrides={"num_hidden_layers": 4})
    convert_checkpoint(hub, tmp_path / "ms")
    config = load_config(tmp_path / "ms")
    blocks = Streamed(choose_port(tmp_path / "ms", "float32"), 40, 16)
    runners, outputs = [], []
    states = np.random.default_rng(0).standard_normal((20, config.hidden_size)).astype(np.float32)
    for index in range(4):
        with blocks.layer(index, {}) as runner:
            runners.append(runner)
            outputs.append(runner.run(states)["layer output"])
    assert runners[0] is runners[2], "both slide"
    assert runners[1] is runners[3]
    assert runners[0] is not runners[1]
    assert runners[0].layer.mlp.experts.down_proj[0] is runners[1].layer.mlp.experts.down_proj[0]
    assert all(np.abs(outputs[0] - other).max() > 0.1 for other in outputs[1:]), "each had weights of its own"
    blocks.close()


def test_an_operation_of_another_size_than_the_reference_s_is_not_there(converted: Path) -> None:
    config = load_config(converted)
    blocks = Streamed(choose_port(converted, "float32"), 40, 16)
    states = np.random.default_rng(0).standard_normal((20, config.hidden_size)).astype(np.float32)
    chosen = config.num_experts_per_tok  # type: ignore[attr-defined]
    with blocks.layer(0, {CHOSEN: chosen + 1, MLP_NORM: config.hidden_size}) as runner:
        found = runner.run(states)
    blocks.close()
    assert found.keys() == {ATTENDED, MLP_NORM, OUTPUT}


def test_the_isolated_feed_forward_reads_its_own_input_and_attention_that_of_the_layer(converted: Path) -> None:
    config = load_config(converted)
    hidden = config.hidden_size
    blocks = Streamed(choose_port(converted, "float32"), 40, 16)
    generator = np.random.default_rng(0)
    states, given = (generator.standard_normal((20, hidden)).astype(np.float32) for _ in range(2))
    with blocks.layer(0, {MLP_NORM: hidden, OUTPUT: hidden}) as runner:
        own = runner.run(states)
        alone = runner.run(states, given)
        again = runner.run(states)
        weight = runner.layer.post_attention_layernorm.weight.asnumpy()
    blocks.close()
    normed = given / np.sqrt(np.square(given).mean(-1, keepdims=True) + config.rms_norm_eps) * weight
    np.testing.assert_allclose(alone[MLP_NORM], normed, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(alone[ATTENDED], own[ATTENDED], "attention is the same either way")
    assert np.abs(alone[OUTPUT] - own[OUTPUT]).max() > 1.0
    np.testing.assert_array_equal(again[OUTPUT], own[OUTPUT], "and nothing is left behind")
