"""The files of a model folder that are not weights, copied as they came."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msport.checkpoint import write_atomically
from msport.errors import CheckpointError
from msport.hub.listing import SMALL_FILES


def find_auxiliary(folder: Path) -> tuple[Path, ...]:
    """Those of `SMALL_FILES` that are in `folder`; raises CheckpointError if one is larger than any of its kind."""
    files = tuple(folder / name for name in SMALL_FILES if (folder / name).is_file())
    for file in files:
        if file.stat().st_size > SMALL_FILES[file.name]:
            most = SMALL_FILES[file.name]
            raise CheckpointError(f"{file}: larger than {most} bytes; take it from the model's repository again")
    return files


def copy_auxiliary(files: Iterable[Path], folder: Path) -> None:
    """Copy `files` into `folder` byte for byte, durably."""
    for file in files:
        write_atomically(folder / file.name, file.read_bytes())
