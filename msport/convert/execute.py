"""Running a plan: several workers, each carrying one tensor at a time from its sources to its place in a shard."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter as Multiset
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from msport.checkpoint import ShardWriter
from msport.checkpoint.dtypes import FLOAT32
from msport.convert.arena import Arena
from msport.convert.budget import Budget, least_scratch, slab_rows
from msport.convert.plan import OutputTensor, Plan
from msport.convert.progress import Counter, Progress
from msport.convert.transforms import TRANSFORMS, Array, Reader
from msport.errors import UsageError

_SURVEY_NBYTES = 16_000_000


def execute(
    plan: Plan, reader: Reader, folder: Path, budget: Budget, progress: Progress | None = None
) -> dict[str, str]:
    """Write all shards of `plan` into `folder`, reading through `reader`; returns the SHA-256 of each tensor.

    Raises the first error of any worker once all have stopped: OSError with the file's name, CheckpointError, and
    UsageError if the dtype cannot hold a value. What has been written by then is left to the caller.
    """
    with ExitStack() as stack:
        counter = Counter("convert", plan.nbytes, progress)
        return Walk(plan.tensors, reader, budget, ShardSink(plan, folder, stack), counter).run()


class Sink(Protocol):
    """Where finished slabs go; called from several threads, but for one tensor in order and by one thread."""

    def write(self, tensor: OutputTensor, offset: int, slab: Array) -> None:
        """Takes the bytes of `tensor` from byte `offset` on; `slab` is overwritten afterwards."""

    def finish(self, tensor: OutputTensor) -> None:
        """All of `tensor` has been written."""


class ShardSink:
    """Writes shards into `folder`, each open from its first slab until its last tensor is finished."""

    def __init__(self, plan: Plan, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._layouts = {shard.file: shard.layout for shard in plan.shards}
        self._unfinished = Multiset(tensor.file for tensor in plan.tensors)
        self._writers: dict[str, ShardWriter] = {}
        self._lock = threading.Lock()

    def write(self, tensor: OutputTensor, offset: int, slab: Array) -> None:
        self._writer(tensor.file).write(tensor.name, offset, slab)

    def finish(self, tensor: OutputTensor) -> None:
        writer = self._writer(tensor.file)
        with self._lock:
            self._unfinished[tensor.file] -= 1
            complete = not self._unfinished[tensor.file]
        if complete:
            writer.close()

    def _writer(self, file: str) -> ShardWriter:
        with self._lock:
            if file not in self._writers:
                writer = ShardWriter(self._folder / file, self._layouts[file])
                self._writers[file] = self._stack.enter_context(writer)
            return self._writers[file]


class NullSink:
    """Keeps nothing: for a walk whose hashes alone are wanted."""

    def write(self, tensor: OutputTensor, offset: int, slab: Array) -> None:
        pass

    def finish(self, tensor: OutputTensor) -> None:
        pass


class Walk:
    """Makes tensors slab by slab, in parallel over tensors, and hands the slabs to a sink."""

    def __init__(
        self,
        tensors: Sequence[OutputTensor],
        reader: Reader,
        budget: Budget,
        sink: Sink,
        counter: Counter,
    ) -> None:
        self._tensors = tensors
        self._reader = reader
        self._sink = sink
        self._workers = budget.workers
        self._counter = counter
        self._stop = threading.Event()
        self._arenas: SimpleQueue[Arena] = SimpleQueue()
        for _ in range(budget.workers):
            self._arenas.put(Arena(budget.arena_nbytes))

    def run(self) -> dict[str, str]:
        """The SHA-256 of each tensor; raises the first error once all workers have stopped."""
        pool = ThreadPoolExecutor(self._workers, "msport-convert")
        try:
            futures = {tensor.name: pool.submit(self._convert, tensor) for tensor in self._tensors}
            finished, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
        finally:  # also on Ctrl-C, which arrives while waiting
            self._stop.set()
            pool.shutdown(cancel_futures=True)
        _raise_first(finished)
        return {name: future.result() for name, future in futures.items()}

    def _convert(self, tensor: OutputTensor) -> str:
        arena = self._arenas.get()
        try:
            return self._carry(tensor, arena)
        except OverflowError:
            raise _overflow(tensor, largest_magnitude(tensor, self._reader)) from None
        finally:
            self._arenas.put(arena)

    def _carry(self, tensor: OutputTensor, arena: Arena) -> str:
        digest = hashlib.sha256()
        for offset, slab in slabs(tensor, self._reader, arena):
            if self._stop.is_set():
                break
            digest.update(slab.data)
            self._sink.write(tensor, offset, slab)
            self._counter.add(slab.nbytes, tensor.name)
        else:
            self._sink.finish(tensor)
        return digest.hexdigest()


def slabs(tensor: OutputTensor, reader: Reader, arena: Arena) -> Iterator[tuple[int, Array]]:
    """The whole of `tensor` in order, as pairs of byte offset and slab; a slab is valid until the next."""
    transform = TRANSFORMS[tensor.transform]
    grid = transform.grid(tensor)
    for begin, end in grid.slabs(slab_rows(tensor, arena.nbytes)):
        arena.reset()
        yield begin * grid.row_nbytes, transform.produce(tensor, begin, end, reader, arena)


def largest_magnitude(tensor: OutputTensor, reader: Reader) -> float:
    """The largest finite magnitude in `tensor` before it is rounded to its dtype."""
    exact = replace(tensor, dtype=FLOAT32)
    arena = Arena(max(least_scratch(exact), _SURVEY_NBYTES))
    magnitudes = (np.abs(slab[np.isfinite(slab)]).max(initial=0) for _, slab in slabs(exact, reader, arena))
    return float(max(magnitudes, default=0.0))


def _overflow(tensor: OutputTensor, largest: float) -> UsageError:
    return UsageError(
        f"{tensor.sources[0].file}: {tensor.dtype.name} cannot hold tensor {tensor.name!r}, whose largest magnitude is"
        f" {largest:.6g}; convert with --dtype bfloat16 or float32"
    )


def _raise_first(futures: set[Future[str]]) -> None:
    for future in futures:
        if not future.cancelled() and (error := future.exception()):
            raise error
