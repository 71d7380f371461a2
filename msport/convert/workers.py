"""Makes tensors with several workers; each processes one tensor at a time from its sources to the sink, or several that
one transform makes together.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.convert.arena import Arena
from msport.convert.budget import Budget, least_scratch, slab_rows
from msport.convert.tensors import OutputTensor
from msport.convert.transform import Reader
from msport.progress import Counter, Progress

# Small enough to be hashed while it is in the CPU cache.
_READ_BACK_NBYTES = 1_000_000


class Hash(Protocol):
    def update(self, data: memoryview) -> None: ...
    def hexdigest(self) -> str: ...


class Sink:
    """The destination of finished slabs. This one keeps nothing: for a run that only computes hashes.

    Several threads call it, but each tensor is written in order by one thread.
    """

    def begin(self, tensor: OutputTensor) -> int:
        """Number of bytes of `tensor` that an earlier run has written."""
        return 0

    def read_into(self, tensor: OutputTensor, offset: int, buffer: Array) -> None:
        """Fills `buffer` with written bytes of `tensor`, from byte `offset` on."""
        raise AssertionError("nothing was kept")

    def copy(self, tensor: OutputTensor, offset: int, size: int) -> bool:
        """Copies `size` bytes from byte `offset` on directly from the source file. Returns False if it cannot."""
        return False

    def write(self, tensor: OutputTensor, offset: int, slab: Array) -> None:
        """Writes the bytes of `tensor` from byte `offset` on. The caller overwrites `slab` afterwards."""

    def finish(self, tensor: OutputTensor, sha256: str) -> None:
        """All of `tensor` has been written; its hash is given."""


class TensorOverflowError(Exception):
    """The dtype of `tensor` cannot hold one of its values."""

    def __init__(self, tensor: OutputTensor) -> None:
        super().__init__(tensor.name)
        self.tensor = tensor


@dataclass(frozen=True, slots=True)
class Workers:
    """Threads that make tensors within `budget` and report to `progress`."""

    budget: Budget
    progress: Progress | None = None

    def run(
        self,
        phase: str,
        tensors: Sequence[OutputTensor],
        reader: Reader,
        sink: Sink | None = None,
        total: int | None = None,
        done: int = 0,
    ) -> dict[str, str]:
        """Makes `tensors` from `reader` slab by slab, in parallel over tensors; returns the SHA-256 of each.

        Passes the slabs to `sink`; without one, nothing is kept. Progress is reported in `phase`: `total` bytes, by
        default those of `tensors`, of which an earlier run has done `done`. An arena smaller than the smallest slab of
        a tensor is enlarged to it. Raises the first error when all workers have stopped; if the dtype cannot hold a
        value, this is a TensorOverflowError.
        """
        total = sum(tensor.nbytes for tensor in tensors) if total is None else total
        arena_nbytes = max([self.budget.arena_nbytes, *map(least_scratch, tensors)])
        arenas = [Arena(arena_nbytes) for _ in range(self.budget.workers)]
        return _Run(reader, sink or Sink(), arenas, Counter(phase, total, self.progress, done)).make(tensors)


class _Run:
    """Makes tensors with one thread for each of `arenas`."""

    def __init__(self, reader: Reader, sink: Sink, arenas: Sequence[Arena], counter: Counter) -> None:
        self._reader = reader
        self._sink = sink
        self._workers = len(arenas)
        self._counter = counter
        self._stop = threading.Event()
        self._arenas: SimpleQueue[Arena] = SimpleQueue()
        for arena in arenas:
            self._arenas.put(arena)

    def make(self, tensors: Sequence[OutputTensor]) -> dict[str, str]:
        """The SHA-256 of each tensor; raises as `Workers.run`."""
        pool = ThreadPoolExecutor(self._workers, "msport-convert")
        try:
            futures = [pool.submit(self._convert, together) for together in made_together(tensors)]
            finished, _ = wait(futures, return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C and SIGTERM, which arrive while waiting
            self._reader.abandon()  # a slab over a slow network can take minutes
            raise
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
        _raise_first(finished)
        return {name: sha256 for future in futures for name, sha256 in future.result().items()}

    def _convert(self, tensors: Sequence[OutputTensor]) -> dict[str, str]:
        arena = self._arenas.get()
        try:
            return self._carry(tensors, arena)
        except OverflowError:
            raise TensorOverflowError(tensors[0]) from None
        finally:
            self._arenas.put(arena)

    def _carry(self, tensors: Sequence[OutputTensor], arena: Arena) -> dict[str, str]:
        """Makes `tensors`, which are made together; returns the hash of each, or nothing if it was stopped."""
        digests = {tensor.name: hashlib.sha256() for tensor in tensors}
        rows = self._resume(tensors, arena, digests)
        if len(tensors) == 1:
            rows = self._copy(tensors[0], arena, digests[tensors[0].name], rows)
        for begin, parts in slabs(tensors[0], self._reader, arena, rows):
            if self._stop.is_set():
                break
            for tensor in tensors:
                slab = parts[tensor.part]
                digests[tensor.name].update(slab.data)
                self._sink.write(tensor, begin * tensor.transform.grid(tensor).row_nbytes, slab)
                self._counter.add(slab.nbytes, tensor.name)
        if self._stop.is_set():
            return {}
        hashes = {name: digest.hexdigest() for name, digest in digests.items()}
        for tensor in tensors:
            self._sink.finish(tensor, hashes[tensor.name])
        return hashes

    def _resume(self, tensors: Sequence[OutputTensor], arena: Arena, digests: Mapping[str, Hash]) -> int:
        """Hashes the rows of `tensors` that an earlier run has written of all of them; returns their number."""
        there = {tensor.name: self._sink.begin(tensor) for tensor in tensors}
        rows = min(_whole_rows(tensor, there[tensor.name]) for tensor in tensors)
        for tensor in tensors:
            done = rows * tensor.transform.grid(tensor).row_nbytes
            if done < there[tensor.name]:
                self._counter.add(done - there[tensor.name], tensor.name)
            for begin, size in _pieces(0, done, arena):
                if self._stop.is_set():
                    break
                digests[tensor.name].update(self._read_back(tensor, begin, size, arena).data)
        return rows

    def _copy(self, tensor: OutputTensor, arena: Arena, digest: Hash, rows: int) -> int:
        """Lets the sink copy `tensor` from row `rows` on from its source file, and hashes the copy; returns the number
        of rows that are there.
        """
        row_nbytes = tensor.transform.grid(tensor).row_nbytes
        for begin, size in _pieces(rows * row_nbytes, tensor.nbytes, arena):
            if self._stop.is_set() or not self._sink.copy(tensor, begin, size):
                return begin // row_nbytes
            digest.update(self._read_back(tensor, begin, size, arena).data)
            self._counter.add(size, tensor.name)
        return tensor.transform.grid(tensor).rows

    def _read_back(self, tensor: OutputTensor, begin: int, size: int, arena: Arena) -> Array:
        arena.reset()
        buffer = arena.array((size,), np.dtype(np.uint8))
        self._sink.read_into(tensor, begin, buffer)
        return buffer


def made_together(tensors: Sequence[OutputTensor]) -> list[list[OutputTensor]]:
    """`tensors` in groups of those that one transform makes from the same sources."""
    groups: dict[Any, list[OutputTensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.transform, tensor.sources), []).append(tensor)
    return list(groups.values())


def slabs(tensor: OutputTensor, reader: Reader, arena: Arena, rows: int = 0) -> Iterator[tuple[int, tuple[Array, ...]]]:
    """The rest of `tensor` after `rows` rows, as pairs of first row and slab, with the slabs of all tensors that are
    made with it. A slab is valid until the next one.
    """
    grid = tensor.transform.grid(tensor)
    if rows == grid.rows:
        return
    for begin, end in grid.slabs(slab_rows(tensor, arena.nbytes), rows):
        arena.reset()
        yield begin, tensor.transform.produce(tensor, begin, end, reader, arena)


def _whole_rows(tensor: OutputTensor, nbytes: int) -> int:
    """The rows of `tensor` in its first `nbytes` bytes, after which its grid allows a slab."""
    grid = tensor.transform.grid(tensor)
    return grid.rows if nbytes == tensor.nbytes else grid.whole_rows(nbytes)


def _pieces(begin: int, end: int, arena: Arena) -> Iterator[tuple[int, int]]:
    """Offsets and sizes of the pieces in which bytes ``[begin, end)`` are read back."""
    step = min(_READ_BACK_NBYTES, arena.nbytes)
    for offset in range(begin, end, step):
        yield offset, min(step, end - offset)


def _raise_first(futures: set[Future[dict[str, str]]]) -> None:
    for future in futures:
        if not future.cancelled() and (error := future.exception()):
            raise error
