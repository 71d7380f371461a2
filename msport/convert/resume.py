"""Resumes an unfinished conversion if it is the same one."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from msport import __version__
from msport.checkpoint.atomic import sync_file, sync_folder
from msport.checkpoint.manifest import FILE_NAME as MANIFEST_NAME
from msport.convert.damage import undamaged
from msport.convert.journal import Done, Journal, read_journal
from msport.convert.output_folder import JOURNAL_NAME, OUTPUT, Staging, partial_folder, remove
from msport.convert.plan import Plan
from msport.convert.workers import Workers
from msport.errors import OutputError, UsageError, enumerate_some, parameter

_KEPT = "msport_kept"

# The parts of a fingerprint in the user's terms. dtype and format explain other shards and tensors, so those are named
# only if nothing above differs.
_PARTS = {
    "msport": "msport's version",
    "source": "the source",
    "revision": "the source's revision",
    "dtype": parameter("dtype"),
    "format": parameter("format"),
}


def make_fingerprint(plan: Plan, source: str, revision: str | None, versions: Mapping[str, str]) -> dict[str, Any]:
    """What must not change between two runs for one output. `versions` are those of the source's files.

    Memory, workers and whether to verify may change.
    """
    return {
        "msport": __version__,
        "source": source.encode("utf-8", "replace").decode(),
        "revision": revision,
        "files": {name: versions[name] for name in sorted(versions)},
        "dtype": plan.dtype,
        "format": plan.format,
        "shards": [[shard.file, shard.layout.file_size] for shard in plan.shards],
        "tensors": hashlib.sha256(repr(plan.tensors).encode()).hexdigest(),
    }


@contextmanager
def journalled(
    staging: Staging,
    plan: Plan,
    fingerprint: Mapping[str, Any],
    workers: Workers,
    *,
    restart: bool = False,
) -> Iterator[Journal]:
    """The journal of a conversion in `staging`; it continues that of an interrupted run or begins a new one.

    Finished tensors are first read back by `workers`; damaged ones are made again.

    If the context ends with an error, the work is kept, except after a UsageError, because the same command would fail
    again. Raises OutputError with the difference if `staging` holds another conversion, unless `restart` discards it.
    """
    done = None if restart else find_done(staging.output, plan, fingerprint)
    if done is None:
        staging.clear()
        done = Done()
    else:
        _clean_up(done, plan, staging.folder)
        try:
            done = undamaged(done, plan, staging.folder, workers)
        except BaseException as error:
            setattr(error, _KEPT, staging.partial)
            raise
    journal = Journal(staging.journal, dict(fingerprint), done)
    try:
        yield journal
    except BaseException as error:
        if journal.empty or isinstance(error, UsageError):
            staging.forget()
        if staging.kept:
            setattr(error, _KEPT, staging.partial)
        raise
    finally:
        journal.close()


def kept_after(error: BaseException) -> Path | None:
    """The folder with the work that was done when `error` ended a conversion; None if nothing is kept."""
    kept: Path | None = getattr(error, _KEPT, None)
    return kept


def find_done(output: Path, plan: Plan, fingerprint: Mapping[str, Any]) -> Done | None:
    """What an interrupted conversion has done of `plan`; None if there is no unfinished conversion.

    Raises OutputError with the difference if it is another conversion. Changes no files.
    """
    partial = partial_folder(output)
    folder = partial / output.name
    replay = read_journal(partial / JOURNAL_NAME)
    if replay is None or not replay.done or folder.is_symlink() or not folder.is_dir():
        return None
    if different := _differences(replay.fingerprint, fingerprint):
        raise OutputError(
            f"{partial}: holds an unfinished conversion, and {different}; to begin anew, add"
            f" {parameter('restart')}, or name another folder with {OUTPUT}"
        )
    return _still_on_disk(replay.done, plan, folder)


def done_nbytes(done: Done, plan: Plan) -> int:
    """Bytes of tensors that are done."""
    return sum(
        tensor.nbytes if number in done.hashes else done.written.get(number, 0)
        for number, tensor in enumerate(plan.tensors)
    )


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    parts = [
        f"{said} was {_shown(earlier.get(part))} and is {_shown(now[part])}"
        for part, said in _PARTS.items()
        if earlier.get(part) != now[part]
    ]
    files = earlier.get("files")
    files = files if isinstance(files, dict) else {}
    changed = sorted(name for name in {*files, *now["files"]} if files.get(name) != now["files"].get(name))
    if changed:
        parts.append(f"{enumerate_some(changed)} changed since")
    if not parts and earlier.get("shards") != now["shards"]:
        parts.append(f"{parameter('max_shard_size')} was another")
    if not parts and earlier.get("tensors") != now["tensors"]:
        parts.append(f"{parameter('dtype')} or config.json asks for other tensors")
    return ", ".join(parts)


def _shown(value: Any) -> str:
    return "none" if value is None else repr(value)


def _still_on_disk(done: Done, plan: Plan, folder: Path) -> Done:
    """`done` without the tensors of shards that are missing or were replaced."""
    sizes = {shard.file: shard.layout.file_size for shard in plan.shards}
    there = {file for file, size in sizes.items() if _is_file_of(folder / file, size)}
    tensors = {number: tensor for number, tensor in enumerate(plan.tensors) if tensor.file in there}
    written = {n: end for n, end in done.written.items() if n in tensors and end <= tensors[n].nbytes}
    hashes = {n: sha256 for n, sha256 in done.hashes.items() if n in tensors}
    closed = {plan.shards[n].file for n in done.shards if n < len(plan.shards)} & there
    # After a crash of the machine, the hash of a tensor may be lost but not the tensor: its bytes are read again.
    written |= {n: tensor.nbytes for n, tensor in tensors.items() if tensor.file in closed and n not in hashes}
    unhashed = {tensor.file for n, tensor in tensors.items() if n not in hashes}
    return Done(written, hashes, {n for n, shard in enumerate(plan.shards) if shard.file in closed - unhashed})


def _is_file_of(path: Path, size: int) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def _clean_up(done: Done, plan: Plan, folder: Path) -> None:
    """Make everything in `done` durable, and remove all else from `folder`."""
    touched = {plan.tensors[number].file for number in (*done.written, *done.hashes)}
    complete = {plan.shards[number].file for number in done.shards}
    others = [entry for entry in folder.iterdir() if entry.name not in touched | complete]
    for entry in sorted(others, key=lambda entry: entry.name != MANIFEST_NAME):  # first what says that all is there
        remove(entry)
    for file in sorted(touched - complete):
        with suppress(FileNotFoundError):
            sync_file(folder / file)
    sync_folder(folder)
