"""Prefill of msport's graph mode beside Transformers in float32 and beside the machine's matrix products.

    python benchmarks/prefill.py [--model qwen2] [--prompts 128 512] [--rounds 2] [--folder /data]

Writes a random checkpoint of the model's shape, converts it, and measures the two in turn, msport, Transformers,
msport, Transformers, each time in a fresh process on the same cores; ratios are those of neighbouring processes.
Figures are medians of the processes' medians, from token ids to the logits of the last token. The limit is the fastest
matrix product measured before and after. The last line is JSON. Needs the extra ``reference``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from comparison import Pairs, add_arguments, checkpoint, measure_in_turn

from msport.architectures import load_config
from msport.bench.measure.limits import Limits
from msport.bench.measure.machine import processor
from msport.bench.measure.session import Result
from msport.bench.measure.statistics import median
from msport.bench.measure.transformers_engine import check_installed
from msport.bench.measure.workload import Job, Workload
from msport.bench.shares import prefill_share
from msport.sizing.costs import Costs


def main() -> None:
    arguments = parse_arguments()
    check_installed()
    workloads = tuple(Workload(prompt, new_tokens=1) for prompt in arguments.prompts)
    with checkpoint(arguments.model, arguments.folder) as (source, converted):
        longest = max(workload.length for workload in workloads)
        job = Job(str(converted), workloads, longest, warmup=arguments.warmup, repeats=arguments.repeats)
        limits, pairs = measure_in_turn(job, source, arguments.rounds)
        costs = Costs(load_config(converted), pairs[0][0].dtype)
    result = summarise(arguments.model, limits, pairs, costs)
    report(result)
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_arguments(parser, "qwen2")
    parser.add_argument("--prompts", type=int, nargs="+", default=[128, 512], help="tokens (default 128 512)")
    return parser.parse_args()


def summarise(model: str, limits: Limits, pairs: Pairs, costs: Costs) -> dict[str, Any]:
    ours, theirs = pairs[0]
    return {
        "benchmark": "prefill",
        "model": model,
        "processor": processor(),
        "versions": {**theirs.versions, **ours.versions},
        "operators": ours.details["operators"],
        "attention_of_transformers": theirs.details["attention"],
        "matmul_gflop_per_s": limits.matmul.best / 1e9,
        "matmul_median_gflop_per_s": [probe.median / 1e9 for probe in limits.arithmetic],
        "prompts": [
            compare([(session.results[index], peer.results[index]) for session, peer in pairs], costs, limits)
            for index in range(len(ours.results))
        ],
    }


def compare(pairs: Sequence[tuple[Result, Result]], costs: Costs, limits: Limits) -> dict[str, Any]:
    """One prompt length in all processes."""
    ours, theirs = zip(*pairs, strict=True)
    return {
        "prompt_tokens": ours[0].workload.prompt_tokens,
        "transformers": side(theirs, costs, limits),
        "msport": side(ours, costs, limits),
        "times_as_fast": [peer.prefill.p50 / result.prefill.p50 for result, peer in pairs],
        "same_token": ours[0].runs[0].tokens == theirs[0].runs[0].tokens,
    }


def side(results: Sequence[Result], costs: Costs, limits: Limits) -> dict[str, Any]:
    shares = [prefill_share(result, costs, limits) for result in results]
    return {
        "prefill_ms": median([1e3 * result.prefill.p50 for result in results]),
        "prefill_ms_by_process": [1e3 * result.prefill.p50 for result in results],
        "tokens_per_s": median([result.prefill_rate for result in results]),
        "gflop_per_s": median([share.achieved for share in shares]) / 1e9,
        "share_of_matmul": median([share.of_limit for share in shares]),
    }


def report(result: Mapping[str, Any]) -> None:
    print(f"{result['model']} on {result['processor']}, float32, batch 1")
    print(f"the fastest matrix product: {result['matmul_gflop_per_s']:.0f} GFLOP/s\n")
    print(f"{'prompt':>6}  {'':14}{'ms':>10}{'tokens/s':>10}{'GFLOP/s':>10}{'of limit':>10}   ms by process")
    for prompt in result["prompts"]:
        for name in ("transformers", "msport"):
            each = prompt[name]
            figures = f"{each['prefill_ms']:>10.1f}{each['tokens_per_s']:>10.0f}{each['gflop_per_s']:>10.1f}"
            by_process = ", ".join(f"{value:.1f}" for value in each["prefill_ms_by_process"])
            print(f"{prompt['prompt_tokens']:>6}  {name:14}{figures}{each['share_of_matmul']:>10.0%}   {by_process}")
    print()
    for prompt in result["prompts"]:
        ratios = ", ".join(f"{ratio:.2f}" for ratio in prompt["times_as_fast"])
        print(f"prompt {prompt['prompt_tokens']}: msport is {ratios} times as fast, pair by pair")


if __name__ == "__main__":
    main()
