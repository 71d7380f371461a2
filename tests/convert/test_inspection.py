from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from convert.hub_folder import change_config, change_tensors
from msport.convert import convert_checkpoint, inspect_path
from msport.errors import CheckpointError, UsageError

LAYER = 2 * 128 + (2 * 256 + 2 * 64) * 128 + 256 + 2 * 64 + 128 + 8
EXPERTS = 8 * 128 + 8 + 8 * (128 * 192 + 192 + 96 * 128 + 128)
PARAMETERS = 2 * 1024 * 128 + 128 + 2 * (LAYER + EXPERTS)


def test_a_hub_folder_is_recognised_and_packed_parameters_are_counted_singly(packed_sample: Path) -> None:
    inspection = inspect_path(packed_sample)
    assert inspection.architecture == "GptOssForCausalLM"
    assert inspection.problem is None
    assert inspection.manifest is None
    assert inspection.parameters == PARAMETERS


@pytest.mark.parametrize("options", [{}, {"dtype": "mxfp4"}, {"format": "ckpt", "max_shard_size": "300kB"}])
def test_a_converted_folder_is_recognised(packed_sample: Path, tmp_path: Path, options: dict[str, str]) -> None:
    manifest = convert_checkpoint(packed_sample, tmp_path / "out", **options)  # type: ignore[arg-type]
    inspection = inspect_path(tmp_path / "out")
    assert (inspection.manifest, inspection.problem, inspection.parameters) == (manifest, None, PARAMETERS)


def test_parameters_of_an_unsupported_model_are_counted_from_its_tensors(
    packed_sample: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(packed_sample)
    change_config(folder, architectures=["FooForCausalLM"])
    inspection = inspect_path(folder)
    assert inspection.architecture == "FooForCausalLM"
    assert inspection.problem is not None
    assert "msport has: gpt-oss" in inspection.problem
    assert inspection.parameters == PARAMETERS


def test_tensors_that_do_not_fit_are_the_reason(packed_sample: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(packed_sample)
    change_tensors(folder, lambda tensors: tensors.pop("lm_head.weight") and None)
    assert "missing: lm_head.weight" in str(inspect_path(folder).problem)
    (folder / "config.json").unlink()
    inspection = inspect_path(folder)
    assert inspection.architecture is None
    assert "config.json: no such file" in str(inspection.problem)


def test_a_single_file_has_tensors_but_no_architecture(packed_sample: Path) -> None:
    file = sorted(packed_sample.glob("*.safetensors"))[0]
    inspection = inspect_path(file)
    assert inspection.architecture is None
    assert set(inspection.files.values()) == {file}
    assert inspection.nbytes == sum(tensor.nbytes for tensor in inspection.tensors.values())


def test_headers_alone_are_read(
    packed_sample: Path, copy_of: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(packed_sample)
    monkeypatch.setattr(os, "preadv", None)
    assert inspect_path(folder).problem is None


def test_malformed_and_absent_files_are_errors(packed_sample: Path, copy_of: Callable[[Path], Path]) -> None:
    folder = copy_of(packed_sample)
    shard = sorted(folder.glob("*.safetensors"))[0]
    os.truncate(shard, 100)
    with pytest.raises(CheckpointError, match=shard.name):
        inspect_path(folder)
    with pytest.raises(CheckpointError, match=shard.name):
        inspect_path(shard)
    with pytest.raises(CheckpointError, match="not a checkpoint file"):
        inspect_path(folder / "config.json")
    with pytest.raises(UsageError, match="no such file or folder"):
        inspect_path(folder / "nothing")
