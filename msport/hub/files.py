"""Files of a model on disk, compared with what a Hub lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msport.checkpoint.index import INDEX_NAME, SINGLE_NAMES, read_weight_map
from msport.errors import CheckpointError, HubError
from msport.hub.listing import Checker, RemoteFile

_CHUNK = 1 << 20


def has_all(folder: Path, files: Sequence[RemoteFile] = ()) -> bool:
    """Whether `folder` holds all of `files` at their sizes; without a list, whatever its own index names."""
    if files:
        return all(has(folder / file.name, file.nbytes) for file in files)
    if not (folder / "config.json").is_file():
        return False
    try:
        shards = read_weight_map(folder / INDEX_NAME).values() if (folder / INDEX_NAME).is_file() else SINGLE_NAMES[:1]
    except (CheckpointError, OSError):
        return False
    return all((folder / name).is_file() for name in set(shards))


def is_same(path: Path, file: RemoteFile) -> bool:
    """Whether `path` holds `file`, down to its hash if the Hub states one."""
    if not has(path, file.nbytes):
        return False
    checker = Checker(file)
    try:
        with path.open("rb") as stream:
            while data := stream.read(_CHUNK):
                checker.update(data)
        checker.finish()
    except (HubError, OSError):
        return False
    return True


def has(path: Path, nbytes: int) -> bool:
    """Whether there is a file of `nbytes` at `path`."""
    return path.is_file() and path.stat().st_size == nbytes
