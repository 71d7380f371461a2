"""The files of a model folder that are not weights, copied unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from msport.checkpoint import write_atomically
from msport.checkpoint.regular_files import check_regular, read_whole
from msport.errors import CheckpointError
from msport.hub.listing import SMALL_FILES


def find_small_files(folder: Path) -> tuple[Path, ...]:
    """The files in `SMALL_FILES` that `folder` has.

    Raises CheckpointError for one that is not a regular file, or too large.
    """
    files = tuple(folder / name for name in SMALL_FILES if os.path.lexists(folder / name))
    for file in files:
        check_regular(file)
        if file.stat().st_size > SMALL_FILES[file.name]:
            raise _too_large(file)
    return files


def copy_small_files(files: Iterable[Path], folder: Path) -> None:
    """Copy `files` into `folder` byte for byte, durably."""
    for file in files:
        try:
            content = read_whole(file, SMALL_FILES[file.name])
        except ValueError as error:  # it has grown meanwhile
            raise _too_large(file) from error
        write_atomically(folder / file.name, content)


def _too_large(file: Path) -> CheckpointError:
    most = SMALL_FILES[file.name]
    return CheckpointError(f"{file}: larger than {most} bytes; take it from the model's repository again")
