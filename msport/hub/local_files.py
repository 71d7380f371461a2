"""Files of a model on this machine: compares them with a Hub's listing and downloads the missing ones."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from msport.checkpoint.index import INDEX_NAME, SINGLE_NAMES, read_weight_map
from msport.errors import CheckpointError, HubError
from msport.hub.limits import Network
from msport.hub.listing import Checker, Listing, RemoteFile, warn_of_unchecked
from msport.hub.transport import Transport

_CHUNK = 1 << 22


def missing(folder: Path, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The `files` that `folder` lacks or has with another size."""
    return [file for file in files if not has(folder / file.name, file.nbytes)]


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a config.json and all files that its own index names."""
    if not (folder / "config.json").is_file():
        return False
    try:
        shards = read_weight_map(folder / INDEX_NAME).values() if (folder / INDEX_NAME).is_file() else SINGLE_NAMES[:1]
    except (CheckpointError, OSError):
        return False
    return all((folder / name).is_file() for name in set(shards))


def is_same(path: Path, file: RemoteFile) -> bool:
    """Whether `path` holds `file`: the same size, and the same hash if the Hub states one."""
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


def download_files(
    listing: Listing,
    files: Sequence[RemoteFile],
    place: Callable[[RemoteFile], Path],
    network: Network,
) -> dict[str, str]:
    """Download `files` of `listing`, each to the path that `place` returns. Returns how each was checked.

    Continues partial downloads of an earlier run. Raises HubError, and OSError if the disk is full.
    """
    warn_of_unchecked(listing, files)
    total = sum(file.nbytes for file in files)
    with (
        closing(Transport(listing.hub, network)) as transport,
        tqdm(total=total, unit="B", unit_scale=True, desc=listing.id, disable=not sys.stderr.isatty()) as bar,
    ):
        kinds = transport.each(lambda file: _download(transport, file, place(file), bar), files)
    return {file.name: kind for file, kind in zip(files, kinds, strict=True)}


def _download(transport: Transport, file: RemoteFile, path: Path, bar: Any) -> str:
    """Download `file` to `path`. It has a temporary name until its hash is checked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.incomplete")
    checker = Checker(file)
    with partial.open("a+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # another process may download the same file
        if has(path, file.nbytes) and is_same(path, file):
            partial.unlink(missing_ok=True)
            bar.update(file.nbytes)
            return file.check
        _complete(transport, file, stream, checker, bar)
        try:
            kind = checker.finish()
        except HubError:
            partial.unlink()
            raise
        partial.replace(path)
    return kind


def _complete(transport: Transport, file: RemoteFile, stream: Any, checker: Checker, bar: Any) -> None:
    """Append the missing bytes of `file` to `stream`; `checker` gets all bytes."""
    buffer = memoryview(bytearray(min(_CHUNK, file.nbytes)))
    stream.seek(0)
    done = 0
    while done < file.nbytes:
        part = buffer[: min(len(buffer), file.nbytes - done)]
        kept = stream.readinto(part)
        if not kept:
            transport.read(file, done, part)
            stream.write(part)
            kept = len(part)
        checker.update(part[:kept])
        done += kept
        bar.update(kept)
    stream.truncate(file.nbytes)
