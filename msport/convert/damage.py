"""Checks whether the files of an interrupted conversion are still as it wrote them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from msport.checkpoint import Checkpoint, Header
from msport.checkpoint.layout import version_on_disk
from msport.checkpoint.regular_files import open_regular
from msport.convert.journal import Done
from msport.convert.plan import Plan
from msport.convert.shards import Shard
from msport.convert.transforms import as_it_is
from msport.convert.workers import Workers

_MAX_OPEN_FILES = 16
_log = logging.getLogger(__name__)


def undamaged(done: Done, plan: Plan, folder: Path, workers: Workers) -> Done:
    """`done` without damaged tensors: reads every finished tensor in `folder` and compares its SHA-256.

    For an unfinished tensor the journal has no hash to compare with. Damaged tensors are made again, and a warning
    names them. Raises OSError with the file's name if a file cannot be read.
    """
    if not done.hashes:
        return done
    finished = {plan.tensors[number].name: number for number in done.hashes}
    files = {plan.tensors[number].file for number in done.hashes}
    shards = [shard for shard in plan.shards if shard.file in files]
    tensors = [
        as_it_is(tensor, shard.file)
        for shard in shards
        for name, tensor in shard.layout.tensors.items()
        if name in finished
    ]
    # The plan gives the headers, because an unfinished shard does not yet begin with its own.
    headers = {folder / shard.file: _header(shard, folder) for shard in shards}
    with Checkpoint(folder, headers, _MAX_OPEN_FILES) as written:
        hashes = workers.run("check what is there", tensors, written)
    damaged = {number for name, number in finished.items() if hashes[name] != done.hashes[number]}
    for number in sorted(damaged):
        _log.warning("%s: %s was damaged after it was written: it is made again", folder, plan.tensors[number].name)
    spoilt = {plan.tensors[number].file for number in damaged}
    return Done(
        {number: end for number, end in done.written.items() if number not in damaged},
        {number: sha256 for number, sha256 in done.hashes.items() if number not in damaged},
        {number for number in done.shards if _is_whole(plan.shards[number], folder, spoilt)},
    )


def _is_whole(shard: Shard, folder: Path, spoilt: set[str]) -> bool:
    """Whether a finished shard is undamaged: all tensors and the bytes between them."""
    if shard.file in spoilt:
        return False
    with open(open_regular(folder / shard.file, os.O_NOFOLLOW), "rb") as file:
        for offset, literal in shard.layout.literals:
            file.seek(offset)
            if file.read(len(literal)) != literal:
                return False
    return True


def _header(shard: Shard, folder: Path) -> Header:
    path = folder / shard.file
    return Header(path, shard.layout.tensors, {}, 0, shard.layout.file_size, version_on_disk(path.stat()))
