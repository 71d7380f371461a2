"""Reading tensors and ranges of rows."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msport.checkpoint import ShardWriter, TensorFile, ckpt, safetensors
from msport.checkpoint.dtypes import BFLOAT16, BOOL, FLOAT32
from msport.errors import CheckpointError

from .families import TensorSpecs, content_of

SPECS: TensorSpecs = [
    ("w", FLOAT32, (10, 3, 2)),
    ("half", BFLOAT16, (7,)),
    ("flags", BOOL, (3,)),
    ("scalar", FLOAT32, ()),
    ("empty", FLOAT32, (4, 0)),
]
CONTENTS = content_of(SPECS, seed=0)


@pytest.fixture(params=["safetensors", "ckpt", "sliced.ckpt"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    layouts = {
        "safetensors": safetensors.plan_layout(SPECS),
        "ckpt": ckpt.plan_layout(SPECS),
        "sliced.ckpt": ckpt.plan_layout(SPECS, slice_bytes=37),
    }
    path = tmp_path / f"x.{request.param}"
    with ShardWriter(path, layouts[request.param]) as writer:
        for name, content in CONTENTS.items():
            writer.write(name, 0, content)
    return path


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()


@pytest.mark.parametrize("name", CONTENTS)
def test_a_whole_tensor_is_read(name: str, path: Path) -> None:
    with TensorFile(path) as file:
        assert same_bits(file.read(name), CONTENTS[name])


@pytest.mark.parametrize(("begin", "end"), [(0, 10), (0, 0), (10, 10), (3, 4), (2, 9), (5, None)])
def test_a_range_of_rows_is_read_fresh_or_into_a_given_array(begin: int, end: int | None, path: Path) -> None:
    expected = CONTENTS["w"][begin:end]
    out = np.empty(expected.shape, np.float32)
    with TensorFile(path) as file:
        assert same_bits(file.read("w", begin, end), expected)
        assert file.read("w", begin, end, out) is out
    assert same_bits(out, expected)


def test_any_range_of_bytes_is_read_into_a_buffer_of_any_type(path: Path) -> None:
    raw = CONTENTS["w"].tobytes()
    with TensorFile(path) as file:
        for begin in range(0, len(raw), 31):
            buffer = np.zeros(min(50, len(raw) - begin), np.uint8)
            file.read_into("w", begin, buffer)
            assert buffer.tobytes() == raw[begin : begin + 50]
        pairs = np.zeros((2, 3), np.uint16)
        file.read_into("w", 5, pairs)
        assert pairs.tobytes() == raw[5:17]


@pytest.mark.parametrize(("begin", "end"), [(-1, 2), (0, 11), (4, 3), (11, None)])
def test_rows_that_are_not_there_are_a_mistake(begin: int, end: int | None, path: Path) -> None:
    with TensorFile(path) as file:
        with pytest.raises(IndexError, match="'w', which has 10"):
            file.read("w", begin, end)
        with pytest.raises(IndexError, match="has no rows"):
            file.read("scalar", 1)
        with pytest.raises(IndexError, match="'half', which has 14"):
            file.read_into("half", 10, np.empty(5, np.uint8))


@pytest.mark.parametrize(
    "out", [np.empty((10, 3), np.float32), np.empty((10, 3, 2), np.int32), np.empty((2, 3, 10), np.float32).T]
)
def test_an_out_array_that_does_not_fit_is_a_mistake(out: NDArray[Any], path: Path) -> None:
    with TensorFile(path) as file, pytest.raises(ValueError, match="out must be a C-contiguous float32 array"):
        file.read("w", out=out)


def test_a_buffer_that_is_not_contiguous_is_a_mistake(path: Path) -> None:
    with TensorFile(path) as file, pytest.raises(ValueError, match="C-contiguous"):
        file.read_into("w", 0, np.empty((4, 4), np.uint8)[:, ::2])


def test_a_view_is_mapped_read_only_and_outlives_the_file(tmp_path: Path) -> None:
    for path, layout in (
        (tmp_path / "x.safetensors", safetensors.plan_layout(SPECS)),
        (tmp_path / "x.ckpt", ckpt.plan_layout(SPECS)),
    ):
        with ShardWriter(path, layout) as writer:
            for name, content in CONTENTS.items():
                writer.write(name, 0, content)
        with TensorFile(path) as file:
            views = {name: file.view(name) for name in CONTENTS}
        for name, view in views.items():
            assert same_bits(view, CONTENTS[name])
            assert not view.flags.writeable or not view.size
            assert not view.flags.owndata or not view.size
        if path.suffix == ".safetensors":
            assert all(view.flags.aligned for view in views.values())


def test_the_pages_of_a_view_are_given_back_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    values = np.arange(1 << 20, dtype=np.float32)
    with ShardWriter(path, safetensors.plan_layout([("x", FLOAT32, values.shape)])) as writer:
        writer.write("x", 0, values)
    with TensorFile(path) as file:
        view = file.view("x")
        view.sum()
        before = mapped_nbytes(path)
        file.release()
        assert before >= view.nbytes
        assert mapped_nbytes(path) == 0
        np.testing.assert_array_equal(view, values)


def mapped_nbytes(path: Path) -> int:
    """Bytes of `path` that are in this process's memory."""
    lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.endswith(str(path)))
    return next(1024 * int(line.split()[1]) for line in lines[start:] if line.startswith("Rss:"))


def test_a_sliced_tensor_cannot_be_viewed(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ShardWriter(path, ckpt.plan_layout([("w", FLOAT32, (10,))], slice_bytes=8)).close()
    with (
        TensorFile(path) as file,
        pytest.raises(CheckpointError, match="'w' is stored in slices and cannot be mapped; read it"),
    ):
        file.view("w")


def test_the_error_about_a_missing_tensor_names_the_file(path: Path) -> None:
    with TensorFile(path) as file:
        for read in (file.read, file.view):
            with pytest.raises(CheckpointError, match=rf"{path.name}: holds no tensor 'v'"):
                read("v")


def test_a_file_that_shrinks_under_the_reader_is_noticed(path: Path) -> None:
    with TensorFile(path) as file:
        os.truncate(path, file.header.tensors["w"].extents[-1][1] - 1)
        with pytest.raises(CheckpointError, match="the file shrank"):
            file.read("w")


def test_a_failing_disk_is_an_os_error_that_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with TensorFile(path) as file:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(OSError, match="Input/output") as error:
            file.read("w")
    assert error.value.filename == str(path)


def test_a_file_that_changed_since_its_header_was_read_is_noticed(path: Path) -> None:
    with TensorFile(path) as file:
        header = file.header
    TensorFile(path, header).close()
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(CheckpointError, match="changed after its header was read; start again"):
        TensorFile(path, header)


@pytest.mark.parametrize(
    ("name", "message"), [("x.bin", "not a checkpoint file"), ("none.safetensors", "no such file; download it")]
)
def test_another_kind_of_file_or_none_is_refused(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=message):
        TensorFile(tmp_path / name)


def test_several_threads_read_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    rows = 64
    values = np.arange(rows * 5000, dtype=np.float32).reshape(rows, 5000)
    with ShardWriter(path, safetensors.plan_layout([("w", FLOAT32, values.shape)])) as writer:
        writer.write("w", 0, values)
    with TensorFile(path) as file, ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda row: file.read("w", row, row + 1), range(rows)))
    np.testing.assert_array_equal(np.concatenate(pieces), values)


def test_every_descriptor_is_closed(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with TensorFile(path) as file:
            file.read("w")
            if "sliced" not in path.name:
                file.view("half")
        file.close()
    header = file.header
    os.utime(path, ns=(0, 0))
    with pytest.raises(CheckpointError):
        TensorFile(path, header)
    assert len(os.listdir("/proc/self/fd")) == before
