"""The workloads of a benchmark: a grid of batches, prompts and dtypes, or a suite.

A suite is a list of `Group` objects with their workloads, one for each dtype and batch size, because the size of the
caches is fixed when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from msport.architectures import ModelConfig
from msport.bench.measure.workload import Workload, check_workload
from msport.bench.prompts import TEXTS
from msport.errors import UsageError, parameter
from msport.msmodels.tokenizer import encode_for_model, load_tokenizer

SUITES = ("mixed", "grid", "prefill-decode", "memory")


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a grid, the number of runs of each, and the number of processes that share the measured runs."""

    prompts: tuple[int, ...] = (128,)
    new_tokens: int = 64
    batches: tuple[int, ...] = (1,)
    warmup: int = 2
    repeats: int = 5
    processes: int = 2


SHAPES = {
    None: Shape(),
    "mixed": Shape(prompts=(), new_tokens=120),
    "grid": Shape((64, 128, 256, 512), 128, (1, 2, 4)),
    "prefill-decode": Shape((64, 128, 256, 512, 1024, 2048)),
    # One run is enough: all runs reach the same peak of memory.
    "memory": Shape((128,), 16, (1, 4), warmup=0, repeats=1, processes=1),
}

_SHORTEST_LONG_CONTEXT = 1024


@dataclass(frozen=True, slots=True)
class Group:
    """What a process runs: workloads of one batch size with caches of `max_length` positions.

    An `optional` group is left out if it would not fit or take too long; the report says why.
    """

    workloads: tuple[Workload, ...]
    max_length: int
    optional: bool = False

    @property
    def batch(self) -> int:
        """Number of sequences in a batch."""
        return self.workloads[0].batch


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A part of the grid that could not be measured, and the reason."""

    dtype: str
    batch: int
    prompts: tuple[int, ...]
    reason: str


def choose_shape(suite: str | None, config: ModelConfig, **asked: Any) -> Shape:
    """The shape of `suite` (None: one prompt length and batch), changed by the fields in `asked` that are not None.

    Prompt lengths of the suite beyond the model's context are left out. Raises `UsageError` for an unknown suite and
    for numbers out of range.
    """
    if suite not in SHAPES:
        raise UsageError(f"suite {suite!r} is not one of {', '.join(SUITES)}")
    shape = replace(SHAPES[suite], **{name: value for name, value in asked.items() if value is not None})
    for name, least in (("warmup", 0), ("repeats", 1), ("processes", 1)):
        if getattr(shape, name) < least:
            raise UsageError(f"{name} must be at least {least}, not {getattr(shape, name)}")
    if asked.get("processes") is not None and shape.processes > shape.repeats:
        raise UsageError(f"processes is {shape.processes}, more than the {shape.repeats} repeats that they share")
    if suite == "memory" and len(shape.prompts) > 1:
        raise UsageError("the suite 'memory' takes one length of prompts; it chooses long contexts by itself")
    shape = replace(shape, processes=min(shape.processes, shape.repeats))  # each makes at least one run
    if suite == "mixed" and asked.get("prompts") is not None:
        raise UsageError("the prompts of suite 'mixed' are texts: leave their length out, or the suite")
    if suite is not None and asked.get("prompts") is None:
        room = config.max_position_embeddings - shape.new_tokens
        shape = replace(shape, prompts=tuple(prompt for prompt in shape.prompts if prompt <= room))
    if not shape.batches or not (shape.prompts or suite == "mixed"):
        raise UsageError("there is nothing to measure: name at least one batch and one prompt length")
    return shape


def plan_groups(
    suite: str | None, shape: Shape, folder: Path, config: ModelConfig, max_length: int | None
) -> tuple[Group, ...]:
    """The groups of `suite` for the model in `folder`, for each dtype.

    Raises `UsageError` if a prompt does not fit the model or `max_length`.
    """
    if max_length is not None and max_length > config.max_position_embeddings:
        raise UsageError(
            f"{parameter('max_length')} {max_length} is more than the {config.max_position_embeddings} positions that"
            " the model was made for"
        )
    batches = sorted(set(shape.batches))
    if suite == "memory":
        return (*_stages(shape, batches, config), *_long_contexts(shape, config, max_length))
    rows = [
        _text_workloads(shape, batch, folder, config)
        if suite == "mixed"
        else tuple(Workload(prompt, shape.new_tokens, batch) for prompt in sorted(set(shape.prompts)))
        for batch in batches
    ]
    for workload in chain(*rows):
        check_workload(workload, config)
    longest = max(workload.length for workload in rows[0])
    if max_length is not None and max_length < longest:
        raise UsageError(f"max_length ({max_length}) is less than prompt and new tokens ({longest}); raise it")
    return tuple(Group(row, max_length or longest) for row in rows)


def _stages(shape: Shape, batches: Sequence[int], config: ModelConfig) -> Iterator[Group]:
    """The stages with one sequence and with several."""
    for batch in batches:
        workload = Workload(max(shape.prompts), shape.new_tokens, batch, "single" if batch == 1 else "batch")
        check_workload(workload, config)
        yield Group((workload,), workload.length)


def _long_contexts(shape: Shape, config: ModelConfig, max_length: int | None) -> Iterator[Group]:
    """One sequence with contexts that double, up to `max_length` or the model's limit."""
    limit = min(max_length or config.max_position_embeddings, config.max_position_embeddings)
    lengths = [_SHORTEST_LONG_CONTEXT]
    while lengths[-1] < limit:
        lengths.append(2 * lengths[-1])
    for length in (*lengths[:-1], limit):
        if length > shape.new_tokens:
            workload = Workload(length - shape.new_tokens, shape.new_tokens, 1, "long context")
            # A requested length is always measured, even if it takes long.
            yield Group((workload,), length, optional=max_length is None)


def _text_workloads(shape: Shape, batch: int, folder: Path, config: ModelConfig) -> tuple[Workload, ...]:
    """The texts of the mixed suite as token ids, without those longer than the model's context."""
    tokenizer = load_tokenizer(folder)
    if tokenizer is None:
        raise UsageError(
            f"{folder}: the mixed suite is text, and there is no tokenizer.json; take it from the model's repository"
            " and convert again, or run another suite"
        )
    room = max(0, config.max_position_embeddings - shape.new_tokens)
    prompts = {name: tuple(encode_for_model(tokenizer, text, config)[:room]) for name, text in TEXTS.items()}
    return tuple(Workload(len(ids), shape.new_tokens, batch, name, ids) for name, ids in prompts.items())
