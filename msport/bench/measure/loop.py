"""The timed loop, the same for every engine: prefill, then one token at a time, greedily."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from msport.bench.measure.workload import Workload

Array = np.ndarray[Any, Any]


class Engine(Protocol):
    """Both methods return float32 logits ``[batch, vocab]`` when they are in host memory and the device is idle."""

    def prefill(self, ids: Array) -> Array:
        """Starts a sequence for each row of int ``ids [batch, seq]``; returns the logits after the last token of
        each.
        """
        ...

    def decode(self, tokens: Array) -> Array:
        """Appends one of int ``tokens [batch]`` to each sequence; returns the logits after it."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """One generation.

    `prefill_seconds` is the time from ids to logits, `first_token_seconds` from ids to the first token, and
    `step_seconds` from each token to the next one. `tokens` holds the generated tokens of each sequence. `process` is
    the number of the process that made the run.
    """

    prefill_seconds: float
    first_token_seconds: float
    step_seconds: tuple[float, ...]
    tokens: tuple[tuple[int, ...], ...]
    process: int = 0

    @property
    def seconds(self) -> float:
        """Seconds from the ids to the last token."""
        return self.first_token_seconds + sum(self.step_seconds)


def generate_once(engine: Engine, ids: Array, workload: Workload) -> Run:
    """Generates ``workload.new_tokens`` tokens after ``ids [batch, seq]``: the first by the prefill, each other by
    a step.
    """
    begin = time.perf_counter()
    logits = engine.prefill(ids)
    prefilled = time.perf_counter()
    tokens = [logits.argmax(-1)]
    times = [time.perf_counter()]
    for _ in range(workload.new_tokens - 1):
        tokens.append(engine.decode(tokens[-1]).argmax(-1))
        times.append(time.perf_counter())
    steps = tuple(np.diff(times).tolist())
    return Run(prefilled - begin, times[0] - begin, steps, tuple(map(tuple, np.stack(tokens, 1).tolist())))


def measure(
    engine: Engine, ids: Array, workload: Workload, warmup: int, repeats: int, advance: Callable[[], None]
) -> list[Run]:
    """Makes `warmup` runs that are not counted and `repeats` runs. `advance` is called after each, between the
    timed parts.
    """
    runs: list[Run] = []
    for number in range(warmup + repeats):
        run = generate_once(engine, ids, workload)
        if number >= warmup:
            runs.append(run)
        advance()
    return runs


def agreement(ours: Sequence[Run], theirs: Sequence[Run]) -> tuple[int, int]:
    """The number of tokens before the first difference of each sequence in the first runs of both, and of all
    tokens.
    """
    pairs = list(zip(ours[0].tokens, theirs[0].tokens, strict=True))
    same = sum(next((i for i, (a, b) in enumerate(zip(x, y, strict=True)) if a != b), len(x)) for x, y in pairs)
    return same, sum(len(x) for x, _ in pairs)
