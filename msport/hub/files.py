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
        return all(_has(folder / file.name, file.nbytes) for file in files)
    if not (folder / "config.json").is_file():
        return False
    try:
        shards = read_weight_map(folder / INDEX_NAME).values() if (folder / INDEX_NAME).is_file() else SINGLE_NAMES[:1]
    except (CheckpointError, OSError):
        return False
    return all((folder / name).is_file() for name in set(shards))


def check_file(path: Path, file: RemoteFile) -> str:
    """How `path` was found to be `file`: ``sha256``, ``git`` or ``length``.

    Raises HubError if it is not, and removes it then, together with what it links to.
    """
    try:
        if path.stat().st_size != file.nbytes:
            raise HubError(f"{file}: {path.stat().st_size} of {file.nbytes} bytes arrived; try again")
        return _check_content(path, file)
    except HubError:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise


def is_same(path: Path, file: RemoteFile) -> bool:
    """Whether `path` holds `file`, down to its hash if the Hub states one."""
    if not _has(path, file.nbytes):
        return False
    try:
        _check_content(path, file)
    except (HubError, OSError):
        return False
    return True


def _check_content(path: Path, file: RemoteFile) -> str:
    checker = Checker(file)
    with path.open("rb") as stream:
        while data := stream.read(_CHUNK):
            checker.update(data)
    return checker.finish()


def _has(path: Path, nbytes: int) -> bool:
    return path.is_file() and path.stat().st_size == nbytes
