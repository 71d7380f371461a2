"""Running a plan: its tensors from their sources to their places in the shards."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from msport.checkpoint import Header
from msport.convert.budget import Budget
from msport.convert.journal import Done, Forgetful, Journal
from msport.convert.overflow import overflow_error, overflowing
from msport.convert.plan import Plan
from msport.convert.resume import done_nbytes
from msport.convert.shard_sink import ShardSink
from msport.convert.transforms import Reader
from msport.convert.workers import Workers
from msport.progress import Counter, Progress


class Source(Reader, Protocol):
    """What is converted: its bytes, and the headers of its files."""

    @property
    def headers(self) -> Mapping[Path, Header]: ...


def execute(
    plan: Plan,
    source: Source,
    folder: Path,
    budget: Budget,
    progress: Progress | None = None,
    *,
    journal: Journal | None = None,
    survey: bool = True,
) -> dict[str, str]:
    """Write what is missing of the shards of `plan` into `folder`; returns the SHA-256 of each tensor.

    What `journal` says is done is not made again; it is told all that is. Raises the first error of any worker once
    all have stopped: OSError with the file's name, CheckpointError, and UsageError if the dtype cannot hold a value,
    which with `survey` names all tensors that it cannot hold. What has been written by then is left to the caller.
    """
    done = journal.done if journal else Done()
    tensors = [tensor for number, tensor in enumerate(plan.tensors) if number not in done.hashes]
    hashes = {plan.tensors[number].name: sha256 for number, sha256 in done.hashes.items()}
    counter = Counter("convert", plan.nbytes, progress, done_nbytes(done, plan))
    with ExitStack() as stack:
        sink = ShardSink(plan, folder, done, journal or Forgetful(), source.headers, stack)
        try:
            hashes |= Workers(tensors, source, budget, sink, counter).run()
            sink.settle()
        except OverflowError as error:
            (first,) = error.args
            affected = overflowing(tensors if survey else [first], source, budget, progress)
            raise overflow_error(affected) from None
    return {tensor.name: hashes[tensor.name] for tensor in plan.tensors}
