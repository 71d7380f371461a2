"""The timed loop produces every token it counts, times each one, and leaves nothing out."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np

from msport.bench.measure.loop import Array, Run, agreement, generate_once, measure
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Workload

PREFILL, STEP = 0.02, 0.005


class Counter:
    """An engine whose next token is the last one plus one, modulo ten, and which takes a known time."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def prefill(self, ids: Array) -> Array:
        time.sleep(PREFILL)
        return self._logits(ids[:, -1], ids.shape)

    def decode(self, tokens: Array) -> Array:
        time.sleep(STEP)
        return self._logits(tokens, tokens.shape)

    def _logits(self, last: Array, shape: tuple[int, ...]) -> Array:
        self.calls.append(shape)
        logits: Array = np.eye(10, dtype=np.float32)[(last + 1) % 10]
        return logits


def test_the_first_token_comes_from_the_prefill_and_each_other_from_one_step() -> None:
    engine, workload = Counter(), Workload(3, 5, batch=2)
    run = generate_once(engine, np.array([[0, 0, 4], [0, 0, 7]]), workload)
    assert run.tokens == ((5, 6, 7, 8, 9), (8, 9, 0, 1, 2))
    assert engine.calls == [(2, 3), (2,), (2,), (2,), (2,)]
    assert len(run.step_seconds) == workload.new_tokens - 1


def test_times_are_those_of_the_calls() -> None:
    began = time.perf_counter()
    run = generate_once(Counter(), np.array([[1, 2, 3]]), Workload(3, 4))
    elapsed = time.perf_counter() - began
    assert PREFILL <= run.prefill_seconds <= run.first_token_seconds
    assert min(run.step_seconds) >= STEP
    assert PREFILL + 3 * STEP <= run.seconds <= elapsed


def test_one_new_token_needs_no_step() -> None:
    run = generate_once(Counter(), np.array([[1, 2, 3]]), Workload(3, 1))
    assert (run.tokens, run.step_seconds) == (((4,),), ())


def test_warm_up_runs_are_made_and_not_counted() -> None:
    engine, done = Counter(), []
    runs = measure(engine, np.array([[1]]), Workload(1, 2), warmup=2, repeats=3, advance=lambda: done.append(1))
    assert len(runs) == 3
    assert len(engine.calls) == 2 * (2 + 3)
    assert len(done) == 5


def test_a_run_survives_its_document() -> None:
    run = Run(0.5, 0.6, (0.1, 0.2), ((1, 2, 3), (4, 5, 6)), process=1)
    assert parse(Run, asdict(run)) == run


def test_agreement_counts_tokens_up_to_the_first_difference_of_each_sequence() -> None:
    ours = Run(1, 1, (), ((1, 2, 3, 4), (5, 6, 7, 8)))
    theirs = Run(1, 1, (), ((1, 2, 9, 4), (5, 6, 7, 8)))
    assert agreement([ours], [theirs]) == (2 + 4, 8)
