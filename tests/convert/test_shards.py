"""A model in which nothing changes: its files are copied by the kernel, not rewritten."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from convert.hub_folder import change_tensors, read_tensors
from msport.checkpoint import read_manifest
from msport.convert import convert_checkpoint, verify_folder
from msport.errors import CheckpointError
from msport.sample import write_sample


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2 in bfloat16, in five files."""
    return write_sample("qwen2", tmp_path_factory.mktemp("samples") / "plain")


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_the_files_stay_as_they_are_and_are_never_read_into_slabs(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a tensor passed through the process")

    monkeypatch.setattr("msport.convert.shard_sink.ShardSink.write", fail)
    manifest = convert_checkpoint(plain, tmp_path / "out")
    assert weights(tmp_path / "out") == weights(plain)
    assert len(weights(plain)) == 5
    assert verify_folder(tmp_path / "out") == manifest
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert (
        index["weight_map"]
        == json.loads((plain / "model.safetensors.index.json").read_text(encoding="utf-8"))["weight_map"]
    )


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def answer(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "ioctl", answer)
    monkeypatch.setattr(os, "copy_file_range", answer)


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_the_kernel_cannot_copy_the_result_is_the_same(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    refuse(monkeypatch, code)
    convert_checkpoint(plain, tmp_path / "out", verify=True)
    assert weights(tmp_path / "out") == weights(plain)


def test_a_disk_that_fails_while_the_kernel_copies_is_an_error(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output") as error:
        convert_checkpoint(plain, tmp_path / "out")
    assert Path(error.value.filename).parent == tmp_path / ".out.msport-partial" / "out"


def test_where_the_filesystem_shares_bytes_none_is_copied(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def share(target: int, request: int, source: int) -> None:
        """What a filesystem such as btrfs or XFS does, as far as a reader can tell."""
        assert request == 0x40049409
        content = os.pread(source, 1 << 30, 0)
        assert os.pwrite(target, content, 0) == len(content)

    monkeypatch.setattr(fcntl, "ioctl", share)
    monkeypatch.setattr(os, "copy_file_range", None)
    convert_checkpoint(plain, tmp_path / "out", verify=True)
    assert weights(tmp_path / "out") == weights(plain)


@pytest.mark.parametrize("options", [{"dtype": "float32"}, {"format": "ckpt"}, {"max_shard_size": "100kB"}])
def test_what_changes_dtype_format_or_size_is_rewritten(plain: Path, tmp_path: Path, options: dict[str, str]) -> None:
    convert_checkpoint(plain, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert weights(tmp_path / "out") != weights(plain)
    assert read_tensors(tmp_path / "out").keys() == read_tensors(plain).keys()


def test_packed_experts_that_stay_packed_are_kept_too(packed_sample: Path, tmp_path: Path) -> None:
    convert_checkpoint(packed_sample, tmp_path / "out", dtype="mxfp4")
    assert weights(tmp_path / "out") == weights(packed_sample)


def test_a_file_with_a_tensor_that_is_dropped_is_rewritten(
    plain: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    folder = copy_of(plain)
    change_tensors(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"]}))
    convert_checkpoint(folder, tmp_path / "out")
    assert "lm_head.weight" not in read_manifest(tmp_path / "out").tensors
    assert read_tensors(tmp_path / "out").keys() == read_tensors(plain).keys()


def test_a_file_that_changes_after_the_plan_is_not_copied(
    plain: Path, tmp_path: Path, copy_of: Callable[[Path], Path]
) -> None:
    from msport.convert import prepare, run

    folder = copy_of(plain)
    conversion = prepare(folder, tmp_path / "out")
    os.utime(min(folder.glob("model-*")), ns=(0, 0))
    with pytest.raises(CheckpointError, match="changed after its header was read"):
        run(conversion)
    assert not (tmp_path / "out").exists()
