"""Decoding and prefill of msport's graph mode, compared with Transformers in float32 and with the limit of the memory.

    python benchmarks/decode.py [--model gpt-oss] [--rounds 2] [--new-tokens 64] [--folder /data]
    python benchmarks/decode.py --model gpt-oss-20b --packed    # msport computes from MXFP4, Transformers from float32

Writes a random checkpoint of the model's shape, converts it, and measures the two in turn (msport, Transformers,
msport, Transformers), each time in a fresh process on the same cores; ratios are those of neighbouring processes.
Figures are medians of the processes' medians. The limit is the number of bytes read per token divided by the memory
bandwidth, measured before and after. The last line is JSON. Needs the extra ``reference``.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from models import SHAPES, checkpoint, print_progress

from msport.architectures import load_config
from msport.bench.caveats import on_machine
from msport.bench.measure.limits import Limits
from msport.bench.measure.machine import processor
from msport.bench.measure.processes import measure_limits, measure_msport, measure_transformers
from msport.bench.measure.session import Session
from msport.bench.measure.statistics import median
from msport.bench.measure.transformers_engine import check_installed
from msport.bench.measure.workload import Job, Workload
from msport.bench.shares import decode_share
from msport.sizing.costs import Costs
from msport.sizing.kept import encodings_of, kept_encodings
from msport.sizing.units import format_size

Pairs = Sequence[tuple[Session, Session]]


def main() -> None:
    arguments = parse_arguments()
    check_installed()
    workload, load = Workload(arguments.prompt, arguments.new_tokens), os.getloadavg()[0]
    dtype = "mxfp4" if arguments.packed else "float32"
    with checkpoint(arguments.model, arguments.folder, dtype=dtype) as (source, converted):
        job = Job(str(converted), (workload,), workload.length, dtype, arguments.warmup, arguments.repeats)
        limits, pairs = measure_in_turn(job, source, arguments.rounds)
        config = load_config(converted)
        costs = Costs(config, "float32", kept_encodings(config, encodings_of(converted, config), "float32", "cpu"))
    result = {**summarise(arguments.model, workload, limits, pairs, costs), "load_average_before": load}
    result["experts"] = "MXFP4" if arguments.packed else "float32"
    report(result)
    for note in on_machine(limits):
        print(f"note: {note}")
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(SHAPES), default="gpt-oss")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of processes (default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="measured runs a process (default 5)")
    parser.add_argument("--warmup", type=int, default=2, help="runs before those (default 2)")
    parser.add_argument("--folder", help="where to work, with room for 4 GB; what is written there is removed")
    parser.add_argument("--packed", action="store_true", help="experts of gpt-oss stay packed as MXFP4")
    parser.add_argument("--prompt", type=int, default=128, help="tokens (default 128)")
    parser.add_argument("--new-tokens", type=int, default=64, help="after the prompt (default 64)")
    return parser.parse_args()


def measure_in_turn(job: Job, source: Path, rounds: int) -> tuple[Limits, Pairs]:
    """Measures msport and Transformers in turn, `rounds` times, and the machine before and after."""
    theirs = replace(job, folder=str(source))
    limits = measure_limits("float32", job.cores, print_progress)
    pairs = [(measure_msport(job, print_progress), measure_transformers(theirs, print_progress)) for _ in range(rounds)]
    return limits + measure_limits("float32", job.cores, print_progress), pairs


def summarise(model: str, workload: Workload, limits: Limits, pairs: Pairs, costs: Costs) -> dict[str, Any]:
    ours, theirs = zip(*pairs, strict=True)
    share = decode_share(ours[0].results[0], costs, limits)
    return {
        "benchmark": "decode",
        "model": model,
        "workload": asdict(workload),
        "processor": processor(),
        "versions": {**theirs[0].versions, **ours[0].versions},
        "transformers": side(theirs),
        "msport": side(ours),
        "times_as_fast": {
            "decode": [decode_ms(peer) / decode_ms(session) for session, peer in pairs],
            "prefill": [prefill_ms(peer) / prefill_ms(session) for session, peer in pairs],
        },
        "decode_bytes": share.amount,
        "bandwidth_gb_per_s": limits.bandwidth.best / 1e9,
        "bandwidth_median_gb_per_s": [probe.median / 1e9 for probe in limits.memory],
        "limit_ms_per_token": 1e3 * share.amount / limits.bandwidth.best,
        "share_of_bandwidth": share.of_limit,
        "same_tokens": ours[0].results[0].runs[0].tokens == theirs[0].results[0].runs[0].tokens,
    }


def side(sessions: Sequence[Session]) -> dict[str, Any]:
    return {
        "decode_ms_per_token": median([decode_ms(session) for session in sessions]),
        "decode_ms_per_token_by_process": [decode_ms(session) for session in sessions],
        "prefill_ms": median([prefill_ms(session) for session in sessions]),
        "prefill_ms_by_process": [prefill_ms(session) for session in sessions],
        "peak_resident_nbytes": max(session.memory.peak_resident for session in sessions),
    }


def decode_ms(session: Session) -> float:
    return 1e3 * session.results[0].decode.p50


def prefill_ms(session: Session) -> float:
    return 1e3 * session.results[0].prefill.p50


def report(result: Mapping[str, Any]) -> None:
    prompt = f"prompt {result['workload']['prompt_tokens']}"
    print(f"{result['model']} on {result['processor']}, {prompt}, float32, our experts in {result['experts']}\n")
    print(f"{'':14}{'decode ms/token':>16}{'prefill ms':>12}{'peak':>10}   decode by process")
    for name in ("transformers", "msport"):
        each = result[name]
        by_process = ", ".join(f"{value:.2f}" for value in each["decode_ms_per_token_by_process"])
        figures = f"{each['decode_ms_per_token']:>16.2f}{each['prefill_ms']:>12.1f}"
        print(f"{name:14}{figures}{format_size(each['peak_resident_nbytes']):>10}   {by_process}")
    bandwidth = f"{result['bandwidth_gb_per_s']:.1f} GB/s"
    amount = format_size(round(result["decode_bytes"]))
    print(f"{'limit':14}{result['limit_ms_per_token']:>16.2f}{'':22}   {amount} a token at {bandwidth}, measured\n")
    for name, ratios in result["times_as_fast"].items():
        print(f"{name}: msport is {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as fast, pair by pair")
    print(f"load average before: {result['load_average_before']:.2f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
