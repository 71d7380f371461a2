"""Makes tensors with several workers; each processes one tensor at a time, from its sources to the sink."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Protocol

import numpy as np

from msport.convert.arena import Arena
from msport.convert.budget import Budget, least_scratch, slab_rows
from msport.convert.tensors import OutputTensor
from msport.convert.transforms import TRANSFORMS, Array, Reader
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
            futures = {tensor.name: pool.submit(self._convert, tensor) for tensor in tensors}
            finished, _ = wait(futures.values(), return_when=FIRST_EXCEPTION)
        except BaseException:  # Ctrl-C and SIGTERM, which arrive while waiting
            self._reader.abandon()  # a slab over a slow network can take minutes
            raise
        finally:
            self._stop.set()
            pool.shutdown(cancel_futures=True)
        _raise_first(finished)
        return {name: future.result() for name, future in futures.items()}

    def _convert(self, tensor: OutputTensor) -> str:
        arena = self._arenas.get()
        try:
            return self._carry(tensor, arena)
        except OverflowError:
            raise TensorOverflowError(tensor) from None
        finally:
            self._arenas.put(arena)

    def _carry(self, tensor: OutputTensor, arena: Arena) -> str:
        digest = hashlib.sha256()
        done = self._resume(tensor, arena, digest)
        done = self._copy(tensor, arena, digest, done)
        for offset, slab in slabs(tensor, self._reader, arena, done):
            if self._stop.is_set():
                break
            digest.update(slab.data)
            self._sink.write(tensor, offset, slab)
            self._counter.add(slab.nbytes, tensor.name)
        if self._stop.is_set():
            return ""
        sha256 = digest.hexdigest()
        self._sink.finish(tensor, sha256)
        return sha256

    def _resume(self, tensor: OutputTensor, arena: Arena, digest: Hash) -> int:
        """Hashes the bytes of `tensor` that an earlier run has written; returns their number."""
        there = self._sink.begin(tensor)
        grid = TRANSFORMS[tensor.transform].grid(tensor)
        done = there if there == tensor.nbytes else grid.whole_rows(there) * grid.row_nbytes
        if done < there:
            self._counter.add(done - there, tensor.name)
        for begin, size in _pieces(0, done, arena):
            if self._stop.is_set():
                break
            digest.update(self._read_back(tensor, begin, size, arena).data)
        return done

    def _copy(self, tensor: OutputTensor, arena: Arena, digest: Hash, done: int) -> int:
        """Lets the sink copy `tensor` from its source file and hashes the copy; returns the number of copied bytes."""
        for begin, size in _pieces(done, tensor.nbytes, arena):
            if self._stop.is_set() or not self._sink.copy(tensor, begin, size):
                return begin
            digest.update(self._read_back(tensor, begin, size, arena).data)
            self._counter.add(size, tensor.name)
        return tensor.nbytes

    def _read_back(self, tensor: OutputTensor, begin: int, size: int, arena: Arena) -> Array:
        arena.reset()
        buffer = arena.array((size,), np.dtype(np.uint8))
        self._sink.read_into(tensor, begin, buffer)
        return buffer


def slabs(tensor: OutputTensor, reader: Reader, arena: Arena, done: int = 0) -> Iterator[tuple[int, Array]]:
    """The rest of `tensor` after `done` bytes, as pairs of byte offset and slab. A slab is valid until the next one."""
    transform = TRANSFORMS[tensor.transform]
    grid = transform.grid(tensor)
    if done == tensor.nbytes:
        return
    for begin, end in grid.slabs(slab_rows(tensor, arena.nbytes), done // grid.row_nbytes):
        arena.reset()
        yield begin * grid.row_nbytes, transform.produce(tensor, begin, end, reader, arena)


def _pieces(begin: int, end: int, arena: Arena) -> Iterator[tuple[int, int]]:
    """Offsets and sizes of the pieces in which bytes ``[begin, end)`` are read back."""
    step = min(_READ_BACK_NBYTES, arena.nbytes)
    for offset in range(begin, end, step):
        yield offset, min(step, end - offset)


def _raise_first(futures: set[Future[str]]) -> None:
    for future in futures:
        if not future.cancelled() and (error := future.exception()):
            raise error
