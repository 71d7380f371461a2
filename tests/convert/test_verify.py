from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from msport.checkpoint import Manifest, read_manifest, write_manifest
from msport.convert import convert_checkpoint, verify_folder
from msport.errors import CheckpointError

NAME = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(params=["safetensors", "ckpt"])
def converted(packed_sample: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    convert_checkpoint(packed_sample, tmp_path / "out", format=request.param, max_shard_size="500kB")
    return tmp_path / "out"


def flip_bit(folder: Path, name: str, position: int) -> None:
    """Change one bit of tensor `name`, and nothing about the file that shows from outside."""
    record = read_manifest(folder).tensors[name]
    path = folder / record.file
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(record.extents[0][0] + position)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_an_intact_folder_passes(converted: Path) -> None:
    assert verify_folder(converted) == read_manifest(converted)


@pytest.mark.parametrize("position", [0, 12_345, 256 * 128 * 2 - 1])
def test_one_flipped_bit_is_found_and_the_tensor_named(converted: Path, position: int) -> None:
    flip_bit(converted, NAME, position)
    with pytest.raises(CheckpointError) as error:
        verify_folder(converted)
    file = read_manifest(converted).tensors[NAME].file
    assert str(error.value) == (
        f"{converted}: does not match msport.json: {NAME} (in {file}) is damaged; convert the model again"
    )


def test_all_damaged_tensors_are_named(converted: Path) -> None:
    for name in (NAME, "model.norm.weight", "lm_head.weight"):
        flip_bit(converted, name, 2)
    with pytest.raises(
        CheckpointError, match=r"lm_head.weight .*model.layers.1.self_attn.q_proj.weight .*model.norm.weight"
    ):
        verify_folder(converted)


def test_a_truncated_shard_is_named(converted: Path) -> None:
    file = converted / read_manifest(converted).tensors[NAME].file
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(CheckpointError, match=file.name):
        verify_folder(converted)


def test_a_missing_shard_is_named(converted: Path) -> None:
    file = converted / read_manifest(converted).tensors[NAME].file
    file.unlink()
    with pytest.raises(CheckpointError, match=file.name):
        verify_folder(converted)


def test_manifest_and_files_must_hold_the_same_tensors(converted: Path) -> None:
    manifest = read_manifest(converted)
    document = manifest.to_document()
    document["tensors"]["extra"] = document["tensors"].pop(NAME)
    (converted / "msport.json").unlink()
    write_manifest(converted, Manifest.from_document(document))
    with pytest.raises(CheckpointError) as error:
        verify_folder(converted)
    assert "extra is missing" in str(error.value)
    assert f"{NAME} is not in the manifest" in str(error.value)


def test_an_index_that_is_missing_or_names_other_files_is_found(converted: Path) -> None:
    path = converted / "param_name_map.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    files = sorted(set(document["weight_map"].values()))
    document["weight_map"][NAME] = next(file for file in files if file != document["weight_map"][NAME])
    if (converted / "model.safetensors.index.json").exists():
        path.write_text(json.dumps(document))
        with pytest.raises(CheckpointError, match=r"param_name_map\.json names other files; convert the model again"):
            verify_folder(converted)
        path.unlink()
        with pytest.raises(CheckpointError, match=r"param_name_map\.json is missing"):
            verify_folder(converted)
    else:  # it is the only index there is, and no tensor is found without it
        path.write_text(json.dumps(document))
        with pytest.raises(CheckpointError, match=r"param_name_map\.json"):
            verify_folder(converted)


def test_another_dtype_than_the_manifests_is_found(converted: Path) -> None:
    path = converted / "msport.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["tensors"][NAME]["dtype"] = "float16"
    path.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=f"{NAME} has another dtype, shape or place"):
        verify_folder(converted)


def test_a_folder_without_a_manifest_is_no_finished_conversion(packed_sample: Path) -> None:
    with pytest.raises(CheckpointError, match="not a finished msport conversion"):
        verify_folder(packed_sample)


def test_a_manifest_without_tensors_matches_no_checkpoint(converted: Path) -> None:
    write_manifest(converted, replace(read_manifest(converted), tensors={}))
    with pytest.raises(CheckpointError, match="is not in the manifest"):
        verify_folder(converted)
