"""Files that are none: opening one is refused at once, where a plain open would wait for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from msport.checkpoint.reader import TensorFile, read_header
from msport.checkpoint.regular_files import open_regular, read_whole
from msport.checkpoint.strict_json import load
from msport.errors import CheckpointError


def lay_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("lay", "kind"),
    [
        (os.mkfifo, "a named pipe"),
        (lay_socket, "a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (Path.mkdir, "a folder"),
    ],
    ids=["fifo", "socket", "device", "folder"],
)
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.safetensors", read_header),
        ("a.ckpt", read_header),
        ("a.json", load),
        ("a.bin", lambda path: read_whole(path, 10)),
    ],
    ids=["safetensors", "ckpt", "json", "whole"],
)
def test_what_is_no_file_is_named_and_not_waited_for(
    lay: Callable[[Path], object], kind: str, name: str, read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / name
    lay(path)
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert str(error.value) == f"{path}: is {kind}, not a file; remove it, or put the file in its place"


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\2\0\0\0\0\0\0\0{}")
    header = read_header(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="is a named pipe"):
        TensorFile(path, header)


def test_a_pipe_that_appears_between_the_look_and_the_opening_gives_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"content")
    look = os.stat

    def look_and_lay(*arguments: object, **options: object) -> object:
        status = look(*arguments, **options)  # type: ignore[call-overload]
        path.unlink()
        os.mkfifo(path)
        return status

    monkeypatch.setattr(os, "stat", look_and_lay)
    descriptor = open_regular(path)
    monkeypatch.undo()
    assert os.read(descriptor, 10) == b""
    os.close(descriptor)


def test_a_file_is_read_whole_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_whole(path, 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        read_whole(path, 4)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt"])
def test_a_file_without_a_size_counts_as_empty(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.symlink_to("/proc/self/environ")
    assert read_whole(path, 10) == b""
    with pytest.raises(CheckpointError, match=r"holds no tensor|0 bytes are too few"):
        read_header(path)
