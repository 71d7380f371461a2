"""Runs a plan: makes each tensor from its sources and writes it to its place in a shard."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from msport.checkpoint import Header
from msport.convert.budget import Budget
from msport.convert.journal import Journal
from msport.convert.overflow import overflow_error, overflowing
from msport.convert.plan import Plan
from msport.convert.resume import done_nbytes
from msport.convert.shard_sink import ShardSink
from msport.convert.transforms import Reader
from msport.convert.workers import Workers
from msport.progress import Counter, Progress


class Source(Reader, Protocol):
    """The checkpoint to convert: its bytes, and the headers of its files."""

    @property
    def headers(self) -> Mapping[Path, Header]: ...


def execute(
    plan: Plan,
    source: Source,
    folder: Path,
    budget: Budget,
    journal: Journal,
    progress: Progress | None = None,
    *,
    survey: bool = True,
) -> dict[str, str]:
    """Write the missing parts of the shards of `plan` into `folder`; returns the SHA-256 of each tensor.

    Work recorded in `journal` is not done again; new work is recorded there. When all workers have stopped, raises the
    first error: OSError with the file's name, CheckpointError, or UsageError if the dtype cannot hold a value; with
    `survey` that error names all such tensors. Written files remain; the caller decides what happens to them.
    """
    done = journal.done
    tensors = [tensor for number, tensor in enumerate(plan.tensors) if number not in done.hashes]
    hashes = {plan.tensors[number].name: sha256 for number, sha256 in done.hashes.items()}
    counter = Counter("convert", plan.nbytes, progress, done_nbytes(done, plan))
    with ExitStack() as stack:
        sink = ShardSink(plan, folder, journal, source.headers, stack)
        try:
            hashes |= Workers(tensors, source, budget, sink, counter).run()
            sink.settle()
        except OverflowError as error:
            (first,) = error.args
            affected = overflowing(tensors if survey else [first], source, budget, progress)
            raise overflow_error(affected) from None
    return {tensor.name: hashes[tensor.name] for tensor in plan.tensors}
