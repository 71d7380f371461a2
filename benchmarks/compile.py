"""How long MindSpore compiles a model's graphs, by number of layers, without and with a filled cache of graphs.

    python benchmarks/compile.py [--model qwen2] [--layers 8 24 48] [--rounds 3] [--folder /data]

For each depth it makes a random checkpoint of the model's shape with hidden size 256 (compilation does not depend on
sizes), and in each round starts three new processes: without a cache, with an empty one, with the one just filled. A
time is that of compiling the prefill and the decode graph. A figure is the shortest of its rounds, which other work on
the machine disturbed least. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

import numpy as np
from models import SHAPES, checkpoint, print_progress

from msport.bench.measure.machine import processor
from msport.bench.measure.processes import measure_msport, measure_warm_start
from msport.bench.measure.session import Session
from msport.bench.measure.workload import Job, Workload

HIDDEN_SIZE = 256
WORKLOAD = Workload(prompt_tokens=128, new_tokens=4)
KINDS = ("cold", "filling", "warm")


def main() -> None:
    arguments = parse_arguments()
    depths = [
        measure(arguments.model, layers, arguments.rounds, arguments.folder) for layers in sorted(set(arguments.layers))
    ]
    result = {
        "benchmark": "compile",
        "model": arguments.model,
        "hidden_size": HIDDEN_SIZE,
        "processor": processor(),
        "versions": {"mindspore": version("mindspore")},
        "depths": depths,
        "seconds_per_layer": {kind: slopes(depths, kind) for kind in KINDS},
    }
    report(result)
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(SHAPES), default="qwen2")
    parser.add_argument("--layers", type=int, nargs="+", default=[8, 24, 48], help="depths (default 8 24 48)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each depth (default 3)")
    parser.add_argument("--folder", help="where to work, with room for 1 GB; what is written there is removed")
    return parser.parse_args()


def measure(model: str, layers: int, rounds: int, folder: str | None) -> dict[str, Any]:
    """Seconds to compile both graphs of a model with this many layers, for each of `KINDS`."""
    overrides = {"hidden_size": HIDDEN_SIZE, "num_hidden_layers": layers}
    with checkpoint(model, folder, overrides) as (_, converted):
        job = Job(str(converted), (WORKLOAD,), WORKLOAD.length, warmup=1, repeats=2)
        started = [
            (measure_msport(job, print_progress), measure_warm_start(replace(job, repeats=0), print_progress))
            for _ in range(rounds)
        ]
    times = zip(*((cold, start.filling, start.warm) for cold, start in started), strict=True)
    _, first = started[0]
    return {
        "layers": layers,
        **{kind: shortest(sessions) for kind, sessions in zip(KINDS, times, strict=True)},
        "graphs_from_cache": first.cached,
        "cache_nbytes": first.cache_nbytes,
    }


def shortest(sessions: Sequence[Session]) -> dict[str, Any]:
    compilations = [session.compilation for session in sessions if session.compilation]
    best = min(compilations, key=lambda compilation: compilation.total)
    return {**asdict(best), "total": best.total, "total_by_process": [each.total for each in compilations]}


def slopes(depths: Sequence[Mapping[str, Any]], kind: str) -> list[float]:
    """Seconds per additional layer, from each depth to the next; equal if the growth is linear."""
    seconds = [depth[kind]["total"] for depth in depths]
    growth: list[float] = (np.diff(seconds) / np.diff([depth["layers"] for depth in depths])).tolist()
    return growth


def report(result: Mapping[str, Any]) -> None:
    print(f"{result['model']} at hidden size {result['hidden_size']} on {result['processor']}: seconds to compile\n")
    print(f"{'layers':>6}{'prefill':>10}{'decode':>10}{'together':>10}{'filling':>10}{'warm':>10}   cache on disk")
    for depth in result["depths"]:
        cold = depth["cold"]
        figures = (cold["prefill"], cold["decode"], cold["total"], depth["filling"]["total"], depth["warm"]["total"])
        columns = "".join(f"{value:>10.2f}" for value in figures)
        print(f"{depth['layers']:>6}{columns}   {depth['cache_nbytes'] / 1e6:.1f} MB")
    print()
    for kind, growth in result["seconds_per_layer"].items():
        print(f"{kind:8} {', '.join(f'{1e3 * value:.0f}' for value in growth)} ms more a layer, from depth to depth")


if __name__ == "__main__":
    main()
