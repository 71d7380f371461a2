"""An output folder that is either absent or complete.

Everything is written into a hidden sibling, ``.NAME.msport-partial``, which is renamed into place at the end. The
lock on it tells a conversion that is running from the remains of one that was killed; those are replaced.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import TracebackType

from msport.checkpoint.atomic import sync_folder
from msport.convert.sizes import format_size
from msport.errors import OutputError


def resolve_output(output: Path) -> Path:
    """`output` without symbolic links; raises OutputError unless it is absent or an empty folder."""
    resolved = output.resolve()
    if resolved.exists() and not resolved.is_dir():
        raise OutputError(f"{output}: is a file; name a new folder with -o")
    if resolved.is_mount():
        raise OutputError(f"{output}: is a mount point, which cannot be replaced; name a folder below it with -o")
    if resolved.is_dir() and any(resolved.iterdir()):
        raise OutputError(f"{output}: the folder is not empty; name another with -o, or empty it")
    return resolved


class Staging:
    """The hidden folder in which `output` comes into being; leaving the context without `commit` removes it.

    Raises OutputError if another process is writing the same output.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.msport-partial")
        self._lock = -1
        self._committed = False

    def __enter__(self) -> Staging:
        while self._lock < 0:
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(parents=True)
            self._lock = _lock(self.folder)
        self._clear()  # what a killed conversion left
        return self

    def commit(self) -> None:
        """Make the folder durable and move it into place."""
        sync_folder(self.folder)
        try:
            self.folder.rename(self.output)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise OutputError(
                    f"{self.output}: appeared while it was written; name another folder with -o"
                ) from error
            raise
        self._committed = True
        sync_folder(self.output.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._committed:
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def check_space(folder: Path, nbytes: int) -> None:
    """Raises OutputError if the disk of `folder`, which may not exist yet, has less than `nbytes` free."""
    free = free_space(folder)
    if free < nbytes:
        raise OutputError(
            f"{folder}: needs {format_size(nbytes)}, and the disk has {format_size(free)} free;"
            " free space or choose a folder on another disk with -o"
        )


def free_space(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which may not exist yet."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock on `folder`, -1 if another process has just moved or removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    except NotADirectoryError:  # a file, or a symbolic link to wherever
        raise OutputError(f"{folder}: is in the way; remove it, or name another folder with -o") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OutputError(
            f"{folder}: another msport process is writing here; wait for it, or name another folder with -o"
        ) from None
    except OSError:
        return descriptor  # a file system without locks
    if _is_open_as(descriptor, folder):
        return descriptor
    os.close(descriptor)
    return -1


def _is_open_as(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
