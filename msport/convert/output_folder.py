"""An output folder that is either absent or complete.

Everything is written into a hidden folder next to it, ``.NAME.msport-partial``. That holds the folder itself, which is
renamed into place at the end, and the journal. A lock on the hidden folder distinguishes a running conversion from an
interrupted one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import time
from pathlib import Path
from types import TracebackType

from msport.checkpoint.atomic import sync_folder
from msport.checkpoint.manifest import FILE_NAME
from msport.errors import OutputError, parameter
from msport.sizing.free import free_disk
from msport.sizing.units import format_size

SUFFIX = ".msport-partial"
JOURNAL_NAME = "journal"
OUTPUT = parameter("output", "-o")

# Seconds to wait for a lock that another process holds, and between two tries.
PATIENCE = 3.0
_PAUSE = 0.02
_PROC = Path("/proc")


def resolve_output(output: Path, elsewhere: str = f"name another with {OUTPUT}") -> Path:
    """`output` without symbolic links; raises OutputError unless it is absent or an empty folder.

    `elsewhere` is the remedy in the message.
    """
    resolved = _without_links(output)
    if resolved is None:
        raise OutputError(f"{output}: is a symbolic link that leads back to itself; {elsewhere}")
    if resolved.exists() and not resolved.is_dir():
        raise OutputError(f"{output}: is a file; {elsewhere}")
    if resolved.is_mount():
        raise OutputError(f"{output}: is a mount point, which cannot be replaced; name a folder below it with {OUTPUT}")
    if (resolved / FILE_NAME).is_file():
        raise OutputError(f"{output}: is a finished conversion already; use it, remove it, or {elsewhere}")
    if resolved.is_dir() and any(resolved.iterdir()):
        raise OutputError(f"{output}: the folder is not empty; {elsewhere}")
    return resolved


def _without_links(path: Path) -> Path | None:
    """`path` without symbolic links, None if they lead in a circle."""
    try:
        resolved = path.resolve()
    except RuntimeError:  # Python 3.13 and later raise no error
        return None
    return None if resolved.is_symlink() else resolved


def partial_folder(output: Path) -> Path:
    """The hidden folder in which `output` is written."""
    return output.with_name(f".{output.name}{SUFFIX}")


def unfinished(path: Path) -> Path | None:
    """The partial folder that is or contains `path`, or None."""
    path = path.absolute()
    return next(
        (each for each in (path, *path.parents) if each.name.startswith(".") and each.name.endswith(SUFFIX)), None
    )


class Staging:
    """The hidden folder in which `output` is written; it is locked during the context.

    Entering the context changes no files; `clear` starts over, and `commit` moves `folder` into place. Leaving the
    context removes everything unless there is a journal, from which the work can go on; `forget` removes that. Raises
    OutputError if another process is writing the same output.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.partial = partial_folder(output)
        self.folder = self.partial / output.name
        self.journal = self.partial / JOURNAL_NAME
        self._lock = -1

    def __enter__(self) -> Staging:
        while self._lock < 0:
            with contextlib.suppress(FileExistsError):
                self.partial.mkdir(parents=True)
            self._lock = _lock(self.partial)
        return self

    @property
    def kept(self) -> bool:
        """Whether leaving the context keeps the work."""
        return os.path.lexists(self.journal)

    def clear(self) -> None:
        """Remove the files of an earlier run, and make an empty `folder`."""
        for entry in self.partial.iterdir():
            remove(entry)
        self.folder.mkdir()

    def commit(self) -> None:
        """Make the folder durable and move it into place."""
        sync_folder(self.folder)
        try:
            self.folder.rename(self.output)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise OutputError(
                    f"{self.output}: appeared while it was written; name another folder with {OUTPUT}"
                ) from error
            raise
        self.forget()
        sync_folder(self.output.parent)

    def forget(self) -> None:
        """Remove the journal, so that nothing is kept."""
        with contextlib.suppress(OSError):
            self.journal.unlink()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.kept:
            shutil.rmtree(self.partial, ignore_errors=True)
        os.close(self._lock)


def remove(entry: Path) -> None:
    """Remove a file, a link (not its target) or a folder with its contents."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()


def check_space(folder: Path, nbytes: int, occupied: int = 0) -> None:
    """Raises OutputError if the disk of `folder`, which may not exist yet, has no room for `nbytes` bytes.

    `occupied` bytes of these are written already.
    """
    free, needed = free_disk(folder), max(nbytes - occupied, 0)
    if free < needed:
        more = " more" if occupied else ""
        raise OutputError(
            f"{folder}: needs {format_size(needed)}{more}, and the disk has {format_size(free)} free;"
            " free space, or choose a folder on another disk"
        )


def occupied_space(output: Path) -> int:
    """Bytes on disk of an unfinished `output`; they will be used again or freed."""
    occupied = 0
    for file in (partial_folder(output) / output.name).glob("*"):
        with contextlib.suppress(FileNotFoundError):
            occupied += file.lstat().st_blocks * 512
    return occupied


def _lock(folder: Path) -> int:
    """A descriptor that holds the lock on `folder`, or -1 if another process has just moved or removed the folder."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    except NotADirectoryError:  # a file or a symbolic link
        raise OutputError(f"{folder}: is in the way; remove it, or name another folder with {OUTPUT}") from None
    if _is_locked(descriptor, folder) and _is_open_as(descriptor, folder):
        return descriptor
    os.close(descriptor)
    return -1


def _is_locked(descriptor: int, folder: Path) -> bool:
    """Lock the open `folder`. Returns False if another process moved or removed it during the wait.

    Raises OutputError if another process still holds the lock after the wait. The wait is for killed processes: they
    hold the lock until the kernel has cleaned up, a tenth of a second or, after writing, longer.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if not _is_open_as(descriptor, folder):
                return False
            if time.monotonic() >= until:
                break
            time.sleep(_PAUSE)
        except OSError:
            return True  # a file system without locks
    holder = _holder(os.fstat(descriptor))
    os.close(descriptor)
    raise OutputError(
        f"{folder}: another msport process{holder} is writing here; wait for it, or name another folder with {OUTPUT}"
    )


def _holder(folder: os.stat_result) -> str:
    """The id of the process that holds the lock, and whether it is stopped, if the system tells."""
    place = f"{os.major(folder.st_dev):02x}:{os.minor(folder.st_dev):02x}:{folder.st_ino}"
    with contextlib.suppress(OSError):
        for line in (_PROC / "locks").read_text().splitlines():
            fields = line.split()
            if "FLOCK" in fields and place in fields:
                number = fields[fields.index(place) - 1]
                state = (_PROC / number / "stat").read_text().rpartition(")")[2].split()[0]
                return f" ({number}, which is stopped)" if state in "Tt" else f" ({number})"
    return ""


def _is_open_as(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
