"""A folder that is no whole conversion fails with the remedy."""

from __future__ import annotations

import json
from pathlib import Path

from msport.doctor.check import Status
from msport.doctor.checkpoint import check_files


def test_a_whole_conversion_passes(converted: Path) -> None:
    check, _ = check_files(converted)
    assert check.status is Status.PASS
    assert "bfloat16 from" in check.finding


def test_a_folder_that_is_not_there_fails(tmp_path: Path) -> None:
    check, manifest = check_files(tmp_path / "gone")
    assert (check.finding, manifest) == (f"{tmp_path / 'gone'}: no such folder", None)


def test_a_folder_without_a_manifest_fails(copied: Path) -> None:
    (copied / "msport.json").unlink()
    check, _ = check_files(copied)
    assert check.status is Status.FAIL
    assert "msport.json: no such file" in check.finding
    assert check.remedy == f"it may be a model that is not converted yet: msport convert {copied}"


def test_a_folder_of_anything_else_is_not_to_be_converted(tmp_path: Path) -> None:
    check, _ = check_files(tmp_path)
    assert check.remedy == "name the folder of a converted checkpoint, or make one: msport convert MODEL"


def test_a_folder_that_is_there_is_never_where_to_convert_to(copied: Path) -> None:
    (copied / "msport.json").write_text("{")
    check, _ = check_files(copied)
    assert check.remedy == "convert the model again, into another folder: msport convert MODEL -o ANOTHER"


def test_a_shard_that_is_cut_short_fails(copied: Path) -> None:
    shard = next(copied.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    check, _ = check_files(copied)
    assert check.status is Status.FAIL
    assert shard.name in check.finding


def test_a_manifest_of_other_tensors_fails(copied: Path) -> None:
    document = json.loads((copied / "msport.json").read_text(encoding="utf-8"))
    document["tensors"]["model.norm.weight"]["shape"] = [64, 2]
    (copied / "msport.json").write_text(json.dumps(document))
    check, _ = check_files(copied)
    assert check.status is Status.FAIL
    assert "/msport.json: model.norm.weight" in check.finding
    assert check.remedy is not None
    assert check.remedy.startswith("convert the model again, into another folder: msport convert ")
    assert check.remedy.endswith(" -o ANOTHER")
