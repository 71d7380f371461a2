"""The overhead of measuring: the benchmark's own share of a decode step and of a generation.

    python benchmarks/bench_overhead.py [--model qwen2] [--new-tokens 64] [--rounds 20] [--folder /data]

The overhead is what the measured loop does besides calling the engine and choosing the token: it reads the clock after
each step and reports progress between runs. There are two measurements. Alone: both loops drive an engine that computes
nothing, and their difference is the overhead; this is the reliable figure, because it resolves nanoseconds. On the
model: both loops generate in turn on the same loaded model; the difference is printed with the spread of its rounds,
because it is far below the noise of a machine. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from models import SHAPES, checkpoint

from msport import load_model
from msport.bench.measure.loop import Array, Engine, generate_once, measure
from msport.bench.measure.machine import processor
from msport.bench.measure.session import timed
from msport.bench.measure.statistics import median
from msport.bench.measure.workload import Workload, make_prompts

BOUND = 0.01
_NULL_TOKENS = 2000
_NULL_ROUNDS = 50


class NullEngine:
    """Returns the same logits at once."""

    def __init__(self, vocab_size: int) -> None:
        self.logits = np.zeros((1, vocab_size), np.float32)

    def prefill(self, ids: Array) -> Array:
        return self.logits

    def decode(self, tokens: Array) -> Array:
        return self.logits


def main() -> None:
    arguments = parse_arguments()
    workload = Workload(arguments.prompt, arguments.new_tokens)
    with checkpoint(arguments.model, arguments.folder) as (_, converted):
        model = load_model(converted, dtype="float32", max_length=workload.length)
        ids = make_prompts(workload, model.config.vocab_size, seed=0)
        steps, shares = on_model(model, ids, workload, arguments.rounds)
    instrument = alone()
    step = median(steps)
    result = {
        "benchmark": "bench_overhead",
        "model": arguments.model,
        "processor": processor(),
        "decode_step_ms": 1e3 * step,
        "instrument_us_per_step": 1e6 * instrument,
        "share_of_a_step": instrument / step,
        "bound": BOUND,
        "within_bound": instrument / step < BOUND,
        "difference_on_the_model": median(shares),
        "difference_on_the_model_by_round": shares,
        "load_average": os.getloadavg()[0],
    }
    report(result)
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(SHAPES), default="qwen2")
    parser.add_argument("--prompt", type=int, default=128, help="tokens (default 128)")
    parser.add_argument("--new-tokens", type=int, default=64, help="after the prompt (default 64)")
    parser.add_argument("--rounds", type=int, default=20, help="pairs of generations on the model (default 20)")
    parser.add_argument("--folder", help="where to work, with room for 4 GB; what is written there is removed")
    return parser.parse_args()


def generate_bare(engine: Engine, ids: Array, workload: Workload) -> Array:
    """The same generation without a clock, as in a user's own loop."""
    tokens = [engine.prefill(ids).argmax(-1)]
    for _ in range(workload.new_tokens - 1):
        tokens.append(engine.decode(tokens[-1]).argmax(-1))
    return np.stack(tokens, 1)


def alone() -> float:
    """Seconds per step that the measured loop takes more than the bare one; a small vocabulary shows it best."""
    engine, ids, workload = NullEngine(8), np.zeros((1, 1), np.int32), Workload(1, _NULL_TOKENS)
    measured = [timed(lambda: measure(engine, ids, workload, 0, 1, lambda: None))[1] for _ in range(_NULL_ROUNDS)]
    bare = [timed(lambda: generate_bare(engine, ids, workload))[1] for _ in range(_NULL_ROUNDS)]
    return max(0.0, min(measured) - min(bare)) / _NULL_TOKENS


def on_model(engine: Engine, ids: Array, workload: Workload, rounds: int) -> tuple[list[float], list[float]]:
    """The time of every decode step, and for each round the share by which the measured generation took longer."""
    steps: list[float] = []
    shares = []
    for number in range(-1, rounds):  # the first pair compiles and warms up
        run, measured = timed(lambda: generate_once(engine, ids, workload))
        _, bare = timed(lambda: generate_bare(engine, ids, workload))
        if number >= 0:
            steps += run.step_seconds
            shares.append(measured / bare - 1.0)
    return steps, shares


def report(result: Mapping[str, Any]) -> None:
    print(f"{result['model']} on {result['processor']}: a decode step takes {result['decode_step_ms']:.2f} ms (median)")
    share = f"{result['share_of_a_step']:.4%} of a step"
    verdict = "below" if result["within_bound"] else "NOT below"
    print(f"the instrument alone: {result['instrument_us_per_step']:.2f} us a step, {share}: {verdict} {BOUND:.0%}")
    by_round = result["difference_on_the_model_by_round"]
    print(
        f"measured against bare generations on the model: {result['difference_on_the_model']:+.2%}"
        f" (rounds {min(by_round):+.2%} to {max(by_round):+.2%})"
    )
    print(f"load average {result['load_average']:.2f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
