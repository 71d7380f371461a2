"""Writing shards: any order, any threads, any fault."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.checkpoint import Layout, ShardWriter, TensorFile, ckpt, safetensors
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32
from msport.errors import CheckpointError

from .families import TensorSpecs, content_of, open_files

SPECS: TensorSpecs = [("w", FLOAT32, (50, 7)), ("b", BFLOAT16, (33,)), ("s", FLOAT32, ()), ("e", FLOAT32, (0, 2))]
CONTENTS = content_of(SPECS, seed=0)


def layouts() -> dict[str, Layout]:
    return {
        "x.safetensors": safetensors.plan_layout(SPECS, {"format": "pt"}),
        "x.ckpt": ckpt.plan_layout(SPECS, slice_bytes=100),
    }


@pytest.fixture(params=layouts())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write_in_order(path: Path, layout: Layout) -> bytes:
    with ShardWriter(path, layout) as writer:
        for tensor, content in CONTENTS.items():
            writer.write(tensor, 0, content)
    return path.read_bytes()


@settings(max_examples=40)
@given(cuts=st.lists(st.integers(0, 1400), max_size=20), seed=st.integers(0, 1000), threads=st.integers(1, 4))
def test_order_pieces_and_threads_do_not_show_in_the_file(
    cuts: list[int], seed: int, threads: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pieces")
    for name, layout in layouts().items():
        expected = write_in_order(folder / f"ordered.{name}", layout)
        pieces = []
        for tensor, content in CONTENTS.items():
            raw = content.tobytes()
            edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
            pieces += [(tensor, low, raw[low:high]) for low, high in pairwise(edges)]
        random.Random(seed).shuffle(pieces)
        with ShardWriter(folder / name, layout) as writer, ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda piece, write=writer.write: write(*piece), pieces))
        assert (folder / name).read_bytes() == expected
    ckpt.read_header(folder / "x.ckpt")


def test_the_file_has_its_final_size_at_once(name: str, tmp_path: Path) -> None:
    layout = layouts()[name]
    with ShardWriter(tmp_path / name, layout):
        status = (tmp_path / name).stat()
        assert status.st_size == layout.file_size
        assert status.st_blocks * 512 >= layout.file_size, "space is not reserved"


def test_an_existing_file_is_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(FileExistsError) as error:
        ShardWriter(tmp_path / name, layouts()[name])
    assert error.value.filename == str(tmp_path / name)
    assert (tmp_path / name).read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize(
    "buffer", [b"abcd", bytearray(b"abcd"), memoryview(b"abcd"), np.frombuffer(b"abcd", np.uint16)]
)
def test_any_contiguous_buffer_is_written(buffer: bytes, name: str, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / name, layouts()[name]) as writer:
        writer.write("w", 98, buffer)
    with TensorFile(tmp_path / name) as file:
        assert file.read("w").tobytes()[98:102] == b"abcd"


def test_writing_outside_a_tensor_is_a_mistake(name: str, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / name, layouts()[name]) as writer:
        for offset, length in ((-1, 1), (66, 1), (0, 67), (60, 7)):
            with pytest.raises(ValueError, match="'b', which has 66"):
                writer.write("b", offset, bytes(length))
        with pytest.raises(ValueError, match="C-contiguous"):
            writer.write("w", 0, np.zeros((4, 4))[:, ::2])
        with pytest.raises(KeyError):
            writer.write("none", 0, b"")


def test_an_exception_leaves_the_file_unfinished_and_closed(name: str, tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / name, layouts()[name]):
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert open_files(tmp_path) == 0


def test_until_it_is_closed_no_reader_takes_it_for_a_checkpoint(name: str, tmp_path: Path) -> None:
    with ShardWriter(tmp_path / name, layouts()[name]) as writer:
        for tensor, content in CONTENTS.items():
            writer.write(tensor, 0, content)
        with pytest.raises(CheckpointError):
            TensorFile(tmp_path / name)
    TensorFile(tmp_path / name).close()


def test_the_beginning_is_written_last_and_when_all_else_is_durable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ``.ckpt`` that begins as it should and is cut somewhere would load as if it were whole."""
    calls: list[int | str] = []
    write, sync = os.pwrite, os.fsync

    def noted_write(descriptor: int, data: memoryview, offset: int) -> int:
        calls.append(offset)
        return write(descriptor, data, offset)

    def noted_sync(descriptor: int) -> None:
        calls.append("durable")
        sync(descriptor)

    with ShardWriter(tmp_path / name, layouts()[name]) as writer:
        for tensor, content in CONTENTS.items():
            writer.write(tensor, 0, content)
        monkeypatch.setattr(os, "pwrite", noted_write)
        monkeypatch.setattr(os, "fsync", noted_sync)
    assert calls[-3:] == ["durable", 0, "durable"]
    assert calls.count(0) == 1


def test_a_finished_file_that_is_gone_on_with_is_unfinished_again(name: str, tmp_path: Path) -> None:
    expected = write_in_order(tmp_path / name, layouts()[name])
    with ShardWriter(tmp_path / name, layouts()[name], resume=True), pytest.raises(CheckpointError):
        TensorFile(tmp_path / name)
    assert (tmp_path / name).read_bytes() == expected


def test_a_later_writer_continues_the_file_of_an_earlier_one(name: str, tmp_path: Path) -> None:
    expected = write_in_order(tmp_path / f"1{name}", layouts()[name])

    def fail() -> None:
        with ShardWriter(tmp_path / name, layouts()[name]) as writer:
            writer.write("w", 0, CONTENTS["w"].tobytes()[:500])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        fail()
    there = np.empty(500, np.uint8)
    with ShardWriter(tmp_path / name, layouts()[name], resume=True) as writer:
        writer.read_into("w", 0, there)
        assert there.tobytes() == CONTENTS["w"].tobytes()[:500]
        writer.write("w", 500, CONTENTS["w"].tobytes()[500:])
        for tensor in CONTENTS.keys() - {"w"}:
            writer.write(tensor, 0, CONTENTS[tensor])
    assert (tmp_path / name).read_bytes() == expected


def test_a_link_is_not_followed_on_resuming(name: str, tmp_path: Path) -> None:
    write_in_order(tmp_path / f"1{name}", layouts()[name])
    (tmp_path / name).symlink_to(tmp_path / f"1{name}")
    with pytest.raises(OSError, match="symbolic links"):
        ShardWriter(tmp_path / name, layouts()[name], resume=True)


def test_the_kernel_copies_a_tensor_from_the_same_place_of_another_file(name: str, tmp_path: Path) -> None:
    expected = write_in_order(tmp_path / f"1{name}", layouts()[name])
    with open(tmp_path / f"1{name}", "rb") as source, ShardWriter(tmp_path / name, layouts()[name]) as writer:
        for tensor, content in CONTENTS.items():
            assert writer.copy_range(source.fileno(), tensor, 0, content.nbytes)
    assert (tmp_path / name).read_bytes() == expected


def test_a_kernel_that_cannot_copy_says_so_and_other_faults_are_raised(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(code: int) -> None:
        def refuse(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "copy_file_range", refuse)
        monkeypatch.setattr(fcntl, "ioctl", refuse)

    with open(__file__, "rb") as source, ShardWriter(tmp_path / name, layouts()[name]) as writer:
        for code in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            fail(code)
            assert not writer.copy_file(source.fileno())
            assert not writer.copy_range(source.fileno(), "w", 0, 10)
        fail(errno.ENOSPC)
        with pytest.raises(OSError, match="No space left"):
            writer.copy_range(source.fileno(), "w", 0, 10)
        with pytest.raises(OSError, match="No space left"):
            writer.copy_file(source.fileno())


def test_closing_twice_does_nothing(name: str, tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / name, layouts()[name])
    writer.close()
    writer.close()


def test_a_file_for_which_there_is_no_room_fails_at_once_and_leaves_nothing(tmp_path: Path) -> None:
    # The kernel refuses files above 4096 bytes, as it would on a full disk. In a process of its own: the limit would
    # also hold for a log that this process writes its output to.
    script = (
        "import errno, resource, signal, sys\n"
        "from msport.checkpoint import ShardWriter, safetensors\n"
        "from msport.checkpoint.dtypes import FLOAT32\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: ShardWriter(sys.argv[1], safetensors.plan_layout([('w', FLOAT32, (4096,))]))\n"
        "except OSError as error: print(errno.errorcode[error.errno], error.filename)\n"
    )
    target = tmp_path / "x"
    command = [sys.executable, "-c", script, str(target)]
    child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    assert child.stdout.split() == ["EFBIG", str(target)]
    assert os.listdir(tmp_path) == []


def test_a_full_disk_at_the_start_leaves_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    with pytest.raises(OSError, match="No space left") as error:
        ShardWriter(tmp_path / name, layouts()[name])
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path / name))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_an_io_error_later_carries_the_name_of_the_file(
    call: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = ShardWriter(tmp_path / name, layouts()[name])
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="Input/output") as error:  # noqa: PT012
        writer.write("w", 0, CONTENTS["w"])
        writer.close()
    assert error.value.filename == str(tmp_path / name)


def test_a_filesystem_that_cannot_reserve_gets_a_sparse_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write_in_order(tmp_path / f"1{name}", layouts()[name])

    def fail(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    assert write_in_order(tmp_path / f"2{name}", layouts()[name]) == expected
    monkeypatch.delattr(os, "posix_fallocate")
    assert write_in_order(tmp_path / f"3{name}", layouts()[name]) == expected


def test_a_kernel_that_writes_and_reads_a_little_at_a_time_changes_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = write_in_order(tmp_path / f"1{name}", layouts()[name])
    pwrite, preadv = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, offset: preadv(descriptor, [buffers[0][:3]], offset))
    assert write_in_order(tmp_path / name, layouts()[name]) == expected
    with TensorFile(tmp_path / name) as file:
        assert file.read("w").tobytes() == CONTENTS["w"].tobytes()


def test_a_file_cut_by_someone_else_while_it_is_written_does_not_hang(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path / "x.ckpt", layouts()["x.ckpt"])
    os.truncate(tmp_path / "x.ckpt", 10)
    with pytest.raises(OSError, match="the file shrank while it was written"):
        writer.close()
