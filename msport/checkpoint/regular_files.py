"""Opens untrusted files, but only regular ones, so that no pipe or device can block."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from msport.errors import CheckpointError

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: str | os.PathLike[str], flags: int = 0) -> int:
    """A descriptor to read the file `path`; ``O_NOFOLLOW`` may be added in `flags`.

    Raises CheckpointError if it is a named pipe, a device, a socket or a folder, and OSError as ``os.open``.
    """
    check_regular(path, follow_symlinks=not flags & os.O_NOFOLLOW)
    # O_NONBLOCK keeps open and read from blocking if a pipe replaces the file meanwhile.
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)


def check_regular(path: str | os.PathLike[str], *, follow_symlinks: bool = True) -> None:
    """Raises CheckpointError if `path` is not a regular file, as `open_regular`, and OSError if it does not exist."""
    mode = os.stat(path, follow_symlinks=follow_symlinks).st_mode
    if kind := _KINDS.get(stat.S_IFMT(mode)):
        raise CheckpointError(f"{path}: is {kind}, not a file; remove it, or put the file in its place")


def read_whole(path: Path, max_nbytes: int) -> bytes:
    """The bytes of the file `path`; ValueError if there are more than `max_nbytes`, and otherwise as `open_regular`."""
    with open(open_regular(path), "rb") as file:
        # A file in /proc has no size and may be endless.
        content = file.read(max_nbytes + 1) if os.fstat(file.fileno()).st_size else b""
    if len(content) > max_nbytes:
        raise ValueError(f"larger than {max_nbytes} bytes")
    return content
