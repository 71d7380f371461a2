"""The argument DIR of the commands that run a converted checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path

from msport.checkpoint.manifest import FILE_NAME
from msport.errors import CheckpointError, UsageError


def find_folder(given: str | None, current: Path | None = None) -> Path:
    """The converted checkpoint that a command works on.

    This is `given` if it is not None; else the current folder if it is a converted checkpoint; else the newest one
    directly below. Raises `CheckpointError` if `given` is no converted checkpoint, and `UsageError` if none is found.
    """
    if given is not None:
        return _checked(Path(given))
    current = current or Path()
    if _is_converted(current):
        return current
    below = [folder for folder in current.iterdir() if _is_converted(folder)]
    if not below:
        raise UsageError(
            f"{current.resolve()}: no converted checkpoint here or directly below;"
            " name its folder, or make one: msport convert MODEL"
        )
    return max(below, key=lambda folder: ((folder / FILE_NAME).stat().st_mtime_ns, folder.name))


def _checked(folder: Path) -> Path:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise CheckpointError(f"{folder}: {what}; name the folder of a converted checkpoint")
    if not _is_converted(folder):
        raise CheckpointError(
            f"{folder}: not a converted checkpoint ({FILE_NAME} is missing);"
            f" convert it first: msport convert {shlex.quote(str(folder))}"
        )
    return folder


def _is_converted(folder: Path) -> bool:
    return (folder / FILE_NAME).is_file()
