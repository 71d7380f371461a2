"""Runs a plan: makes each tensor from its sources and writes it to its place in a shard."""

from __future__ import annotations

from pathlib import Path

from msport.convert.journal import Journal
from msport.convert.overflow import overflow_error, overflowing
from msport.convert.plan import Plan
from msport.convert.resume import done_nbytes
from msport.convert.shard_sink import ShardSink
from msport.convert.workers import TensorOverflowError, Workers
from msport.hub import AnyCheckpoint


def execute(
    plan: Plan,
    checkpoint: AnyCheckpoint,
    folder: Path,
    workers: Workers,
    journal: Journal,
    *,
    survey: bool = True,
) -> dict[str, str]:
    """Write the missing parts of the shards of `plan`, made from `checkpoint`, into `folder`.

    Returns the SHA-256 of each tensor.

    Work recorded in `journal` is not done again; new work is recorded there. When all workers have stopped, raises the
    first error: OSError with the file's name, CheckpointError, or UsageError if the dtype cannot hold a value; with
    `survey` that error names all such tensors. Written files remain; the caller decides what happens to them.
    """
    done = journal.done
    tensors = [tensor for number, tensor in enumerate(plan.tensors) if number not in done.hashes]
    hashes = {plan.tensors[number].name: sha256 for number, sha256 in done.hashes.items()}
    with ShardSink(plan, folder, journal, checkpoint.headers) as sink:
        sink.close_finished()
        try:
            hashes |= workers.run("convert", tensors, checkpoint, sink, plan.nbytes, done_nbytes(done, plan))
            sink.settle()
        except TensorOverflowError as error:
            affected = overflowing(tensors if survey else [error.tensor], checkpoint, workers)
            raise overflow_error(affected) from None
    return {tensor.name: hashes[tensor.name] for tensor in plan.tensors}
