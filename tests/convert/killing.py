"""Kills a conversion again and again, and looks at what is left each time. Run as a script: it forks.

    python killing.py MODEL FOLDER KILLS SEED FORMAT

Every conversion runs in a forked child that SIGKILLs itself around a random one of its own system calls: before it,
after it, or, of a write, in its middle. So every state between two calls can come up, which waiting for a while would
leave to luck. Prints a JSON document of what happened; any broken promise is an AssertionError.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from msport.checkpoint.reader import read_header
from msport.cli.folders import find_folder
from msport.convert import Options, inspect_path, prepare, run, shard_sink, verify_folder
from msport.convert.budget import Budget, least_scratch
from msport.convert.conversion import Conversion, find_unfinished
from msport.convert.resume import done_nbytes
from msport.errors import MsportError

CALLS = ("open", "write", "pwrite", "fsync", "fdatasync", "posix_fallocate", "copy_file_range")
CALLS += ("mkdir", "rename", "replace", "unlink", "rmdir")

# Of the output.
FORMAT = "safetensors"

# The first ones write: a kill may come when half of the bytes are there.
WRITES = ("write", "pwrite")


def main(model: Path, folder: Path, kills: int, seed: int) -> None:
    moments = random.Random(seed)
    expected = undisturbed(model, folder / "undisturbed")
    calls = count_calls(model, folder / "counted")
    output = folder / "out"
    log = folder / "log"
    done, tally = 0, Counter[str]()
    while tally["killed"] < kills or output.exists() or partial_of(output).exists():
        # In the end nothing is killed, so that the last conversion finishes.
        moment = moments.randrange(1, calls // 4) if tally["killed"] < kills else -1
        when = moments.choice(("before", "after", "within"))
        killed = in_child(partial(convert, model, output, log, moment, when))
        tally["killed"] += killed
        if output.exists():  # a kill after the folder moved into its place comes too late to do harm
            tally["finished"] += 1
            assert contents(output) == expected
            verify_folder(output)
            shutil.rmtree(output)
            shutil.rmtree(partial_of(output), ignore_errors=True)
            check_log(log.read_text(encoding="utf-8").splitlines())
            log.unlink()
            done = 0
        else:
            assert killed
            check_unfinished(output, expected)
            again = prepared(model, output)
            now = done_nbytes(find_unfinished(again), again.plan)
            assert now >= done, "work was forgotten"
            tally["resumed with work done"] += bool(now)
            done = now
    print(json.dumps({**tally, "calls": calls}))


def partial_of(output: Path) -> Path:
    return output.with_name(f".{output.name}.msport-partial")


def prepared(model: Path, output: Path) -> Conversion:
    """A conversion in the smallest slabs there are, into several shards."""
    conversion = prepare(model, output, Options(format=FORMAT, max_shard_size="300kB"))
    tight = Budget(2, max(map(least_scratch, conversion.plan.tensors)))
    return replace(conversion, budget=tight)


def undisturbed(model: Path, output: Path) -> dict[str, bytes]:
    run(prepared(model, output))
    return contents(output)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_child(act: Callable[[], None]) -> bool:
    """Whether a forked child that does `act` was killed; anything else but success is an error here too."""
    child = os.fork()
    if not child:
        try:
            act()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"a conversion ended with status {status}"
    return killed


def count_calls(model: Path, output: Path) -> int:
    read, write = os.pipe()

    def act() -> None:
        send, counter = os.write, itertools.count(1)
        hook_calls(counter, -1, "after")
        run(prepared(model, output))
        send(write, str(next(counter)).encode())

    in_child(act)
    return int(os.read(read, 20))


def convert(model: Path, output: Path, log: Path, moment: int, when: str) -> None:
    """Convert, and log what is read, what is written and what is finished, each after it happened."""
    shard_sink.SYNC_NBYTES = 300_000
    descriptor, note = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.write

    def logged(function: Callable[..., Any], line: Callable[..., str]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            result = function(*arguments)
            note(descriptor, (line(*arguments) + "\n").encode())
            return result

        return call

    conversion = prepared(model, output)
    source, sink = conversion.checkpoint, shard_sink.ShardSink
    source.read_into = logged(source.read_into, lambda name, *_: f"read {name}")  # type: ignore[method-assign]
    sink.write = logged(sink.write, lambda _, tensor, offset, slab: f"written {tensor.name} {offset}")
    names = {tensor.name: [source.name for source in tensor.sources] for tensor in conversion.plan.tensors}
    sink.finish = logged(sink.finish, lambda _, tensor, sha256: f"finished {' '.join(names[tensor.name])}")
    hook_calls(itertools.count(1), moment, when)
    run(conversion)


def hook_calls(counter: itertools.count, moment: int, when: str) -> None:
    """Kill this process around call number `moment`."""

    def hook(name: str) -> None:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            now = next(counter) == moment
            if now and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if now and when == "within" and name in WRITES:
                descriptor, data, *offset = arguments
                original(descriptor, bytes(data)[: len(data) // 2], *offset)
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if now:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(os, name, call)

    for name in CALLS:
        hook(name)


def check_log(lines: list[str]) -> None:
    """No slab that was claimed is written again, and no source of a finished tensor is read again."""
    finished: set[str] = set()
    slabs: set[str] = set()
    for line in lines:
        kind, *names = line.split()
        if kind == "read":
            assert names[0] not in finished, f"{names[0]} is read again"
        elif kind == "written":
            assert line not in slabs, f"{line} again"
            slabs.add(line)
        else:
            finished.update(names)


def check_unfinished(output: Path, expected: dict[str, bytes]) -> None:
    """Nothing of what is left passes for a finished conversion."""
    hidden = partial_of(output)
    if not hidden.exists():
        return
    folder = hidden / output.name
    for path in (hidden, folder, *folder.glob("*")):
        refuses(partial(inspect_path, path))
    refuses(partial(find_folder, str(hidden)))
    for shard in folder.glob("model-*"):
        try:
            read_header(shard)
        except MsportError:
            continue
        assert shard.read_bytes() == expected[shard.name], f"{shard.name} has a header and is not complete"
    manifest = folder / "msport.json"
    if manifest.exists():  # the last thing that is written before the folder moves into its place
        assert contents(folder) == expected


def refuses(act: Callable[[], object]) -> None:
    try:
        act()
    except MsportError:
        return
    raise AssertionError("an unfinished conversion was accepted")


if __name__ == "__main__":
    FORMAT = sys.argv[5]
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
