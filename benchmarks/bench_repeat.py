"""Whether two runs of `msport bench` on one machine agree within the spread that they state themselves.

    python benchmarks/bench_repeat.py [--model qwen2] [--runs 2] [--repeats 5] [--processes 2] [--folder /data]

Writes a random checkpoint of the model's shape, converts it, runs the benchmark several times, one after the other, and
compares each run with the first as `msport bench --compare` does. That comparison allows for changes of the machine's
own speed; in addition, the number of figures that agree within the spread of the repeats alone is printed. Only an idle
machine can show agreement, so the load average is printed too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os

from models import SHAPES, checkpoint, print_progress

from msport import benchmark
from msport.bench.compare import SMALLEST, compare
from msport.bench.compare_views import render_comparison


def main() -> None:
    arguments = parse_arguments()
    load = os.getloadavg()[0]
    with checkpoint(arguments.model, arguments.folder) as (_, converted):
        reports = [
            benchmark(
                converted,
                batch=(1, 2),
                prompt_tokens=(64, 128),
                new_tokens=arguments.new_tokens,
                repeats=arguments.repeats,
                processes=arguments.processes,
                progress=print_progress,
            )
            for _ in range(arguments.runs)
        ]
    comparison = compare([f"run {number}" for number in range(1, arguments.runs + 1)], reports)
    print(render_comparison(comparison))
    changes = [change for each in comparison.others for change in each.changes if change.noise is not None]
    within_spread = sum(abs(change.change) <= max(SMALLEST, change.spread or 0.0) for change in changes)
    result = {
        "benchmark": "bench_repeat",
        "model": arguments.model,
        "judged": len(changes),
        "agree": sum(change.verdict == "noise" for change in changes),
        "agree_within_the_repeats": within_spread,
        "disagree": [f"{change.cell}: {change.figure}" for change in changes if change.verdict != "noise"],
        "load_average_before": load,
        **comparison.to_document(),
    }
    print(f"{within_spread} of {len(changes)} agree within the spread of their repeats alone")
    print(f"\nload average before: {load:.2f} on {os.cpu_count()} processors")
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(SHAPES), default="qwen2")
    parser.add_argument("--runs", type=int, default=2, help="benchmarks, each of them whole (default 2)")
    parser.add_argument("--new-tokens", type=int, default=32, help="after each prompt (default 32)")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs of each (default 5)")
    parser.add_argument("--processes", type=int, default=2, help="that share them (default 2)")
    parser.add_argument("--folder", help="where to work, with room for 4 GB; what is written there is removed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
