"""Files that are either absent or complete, and errors that name them."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from msport.checkpoint.regular_files import open_regular


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write ``data`` (text as UTF-8) to a temporary file beside ``path``, make it durable, and rename it to ``path``.

    A file or symbolic link at ``path`` is either replaced completely or left unchanged. Raises OSError with the file's
    name.
    """
    path = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            error.filename, error.filename2 = str(path), None
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def naming_the_file(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the name ``path`` to every OSError in this context; errors of file descriptors have no name."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def sync_folder(folder: Path) -> None:
    """Make renamed and new files in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make everything that was written to the file ``path`` durable, by any process. Raises OSError with its name."""
    descriptor = open_regular(path, os.O_NOFOLLOW)
    try:
        with naming_the_file(path):
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
