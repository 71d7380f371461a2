"""The destination of a conversion's slabs: shards, with a journal of their content."""

from __future__ import annotations

import threading
from collections import Counter as Multiset
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from msport.checkpoint import Header, ShardWriter, TensorFile
from msport.checkpoint.atomic import sync_file
from msport.checkpoint.dtypes import Array
from msport.convert.journal import Journal
from msport.convert.plan import Plan
from msport.convert.tensors import OutputTensor
from msport.convert.workers import Sink

# Bytes written between two syncs, so that a power failure loses at most about a minute of work.
SYNC_NBYTES = 1_000_000_000


class ShardSink(Sink):
    """Writes shards into `folder`. A shard is open from its first slab until its last tensor is finished, at most
    until the context ends.

    Each written slab is recorded in `journal`, and made durable from time to time. `headers` are those of the source's
    files; shards that the plan keeps are copied from these files.
    """

    def __init__(self, plan: Plan, folder: Path, journal: Journal, headers: Mapping[Path, Header]) -> None:
        self._folder = folder
        self._done = done = journal.done
        self._journal = journal
        self._headers = {path.name: header for path, header in headers.items()}
        self._stack = ExitStack()
        self._numbers = {tensor.name: number for number, tensor in enumerate(plan.tensors)}
        self._shards = {shard.file: shard for shard in plan.shards}
        self._shard_numbers = {shard.file: number for number, shard in enumerate(plan.shards)}
        self._unfinished = Multiset(
            tensor.file for number, tensor in enumerate(plan.tensors) if number not in done.hashes
        )
        self._writers: dict[str, ShardWriter] = {}
        self._originals: dict[str, TensorFile] = {}
        self._cloned: set[str] = set()
        self._lock = threading.Lock()
        self._durability = _Durability(folder, journal, self._stack)

    def __enter__(self) -> ShardSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def close_finished(self) -> None:
        """Closes shards whose tensors were all finished by an earlier run that ended before it closed them."""
        for file, number in self._shard_numbers.items():
            if not self._unfinished[file] and number not in self._done.shards:
                self._close(file)

    def begin(self, tensor: OutputTensor) -> int:
        return self._done.written.get(self._numbers[tensor.name], 0)

    def read_into(self, tensor: OutputTensor, offset: int, buffer: Array) -> None:
        self._writer(tensor.file).read_into(tensor.name, offset, buffer)

    def copy(self, tensor: OutputTensor, offset: int, size: int) -> bool:
        writer, original = self._writer(tensor.file), self._originals.get(tensor.file)
        if original is None:
            return False
        there = tensor.file in self._cloned or writer.copy_range(original.fileno(), tensor.name, offset, size)
        if there:
            self._claim(tensor, offset + size, size)
        return there

    def write(self, tensor: OutputTensor, offset: int, slab: Array) -> None:
        self._writer(tensor.file).write(tensor.name, offset, slab)
        self._claim(tensor, offset + slab.nbytes, slab.nbytes)

    def finish(self, tensor: OutputTensor, sha256: str) -> None:
        self._journal.hashed(self._numbers[tensor.name], sha256)
        with self._lock:
            self._unfinished[tensor.file] -= 1
            complete = not self._unfinished[tensor.file]
        if complete:
            self._close(tensor.file)

    def settle(self) -> None:
        """Wait until everything is durable. Raises OSError if that fails."""
        self._durability.settle()

    def _claim(self, tensor: OutputTensor, end: int, size: int) -> None:
        self._durability.count(tensor.file, 0)  # first, because everything claimed before a mark must be in its files
        self._journal.written(self._numbers[tensor.name], end)
        self._durability.count(tensor.file, size)

    def _close(self, file: str) -> None:
        self._writer(file).close()
        self._journal.closed(self._shard_numbers[file])

    def _writer(self, file: str) -> ShardWriter:
        with self._lock:
            if file not in self._writers:
                self._writers[file] = self._open(file)
            return self._writers[file]

    def _open(self, file: str) -> ShardWriter:
        shard, path = self._shards[file], self._folder / file
        resume = path.exists()
        writer = self._stack.enter_context(ShardWriter(path, shard.layout, resume=resume))
        header = self._headers.get(shard.source) if shard.source else None
        if header is not None and header.path.is_file():
            self._originals[file] = original = self._stack.enter_context(TensorFile(header.path, header))
            if not resume and writer.copy_file(original.fileno()):
                self._cloned.add(file)
        return writer


class _Durability:
    """Makes written data durable in the background, and records that in the journal."""

    def __init__(self, folder: Path, journal: Journal, stack: ExitStack) -> None:
        self._folder = folder
        self._journal = journal
        self._pool = stack.enter_context(ThreadPoolExecutor(1, "msport-sync"))
        self._round: Future[None] | None = None
        self._lock = threading.Lock()
        self._files: set[str] = set()
        self._nbytes = 0

    def count(self, file: str, nbytes: int) -> None:
        """Counts `nbytes` bytes written to `file` and claimed. Raises OSError if an earlier sync failed."""
        with self._lock:
            self._files.add(file)
            self._nbytes += nbytes
            if self._nbytes < SYNC_NBYTES or (self._round and not self._round.done()):
                return
            earlier, files = self._round, self._files
            self._files, self._nbytes = set(), 0
            self._journal.mark()
            self._round = self._pool.submit(self._sync, files)
        if earlier:
            earlier.result()

    def settle(self) -> None:
        """Wait for the last sync. Raises OSError if it failed."""
        if self._round:
            self._round.result()

    def _sync(self, files: set[str]) -> None:
        for file in files:
            sync_file(self._folder / file)
        self._journal.synced()
