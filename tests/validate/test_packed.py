"""Experts that stay packed as MXFP4 and are decoded in the graph are judged as those that were decoded before."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from msport.convert import convert_checkpoint
from msport.errors import UsageError
from msport.msmodels import computation
from msport.validate import validate_model
from msport.validate.port.choice import choose_port
from msport.validate.reference import run
from validate.tampering import change_tensor

PROMPTS = [list(range(3, 63)), list(range(50, 60))]


@pytest.fixture(scope="module")
def packed(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "tiny-ms"
    convert_checkpoint(sample, folder, dtype="mxfp4")
    return folder


@pytest.mark.reference
@pytest.mark.slow  # the next test, and logits of packed experts in tests/msmodels, are quick
@pytest.mark.parametrize("stream", [False, True])
def test_packed_experts_pass_at_every_layer(stream: bool, packed: Path) -> None:
    pytest.importorskip("transformers")
    report = validate_model(packed, tol=1e-4, dtype="mxfp4", level="layers", stream=stream, prompts=PROMPTS)
    print(report)
    assert report.passed
    assert report.setup.packed
    assert "in float32 with weights in mxfp4 and bfloat16 on CPU" in str(report)
    document = json.loads(report.to_json())
    assert (document["dtype"], document["packed"], document["streamed"]) == ("float32", True, stream)
    (experts, *_) = [o for o in report.layers[1].operations if o.name == "experts"]
    assert 0.0 < experts.largest < 1e-5


@pytest.mark.reference
@pytest.mark.parametrize("stream", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_scale_that_was_changed_is_located_at_the_experts_and_in_the_tensor(
    stream: bool, packed: Path, sample: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    name = "model.layers.1.mlp.experts.down_proj_scales"

    def double(scales: np.ndarray) -> np.ndarray:
        return np.asarray(scales + 1, scales.dtype)

    folder = change_tensor(packed, tmp_path / "ms", name, double)
    report = validate_model(folder, dtype="mxfp4", level="layers", stream=stream, prompts=PROMPTS)
    print(report)
    assert report.departure is not None
    assert report.departure.first_operation is not None
    assert (report.departure.name, report.departure.first_operation.name) == ("layers.1", "experts")
    assert [check.name for check in report.weights if not check.passed] == [name]
    assert f"its weights are wrong: {name}" in str(report)


def test_a_checkpoint_without_packed_experts_is_refused_before_the_reference_runs(
    converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(run, "load_reference", lambda *arguments: pytest.fail("the reference was loaded"))
    with pytest.raises(UsageError, match=r"holds no packed experts.*msport convert --dtype mxfp4"):
        validate_model(converted, dtype="mxfp4", prompts=PROMPTS)


def test_on_an_npu_a_packed_checkpoint_is_judged_as_it_is_loaded_there(
    packed: Path, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computation.ms, "get_context", lambda name: "Ascend")
    monkeypatch.setattr(computation.chips, "soc_version", lambda: "ascend910b")
    assert (choose_port(packed, None).packed, choose_port(packed, None).dtype) == (True, "bfloat16")
    assert choose_port(packed, "float16").packed, "in any dtype of computation"
    assert not choose_port(converted, None).packed
