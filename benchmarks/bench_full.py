"""Generates with a synthetic gpt-oss-20b, 21 billion parameters, whose experts stay packed as MXFP4.

    python benchmarks/bench_full.py                 # 28 GB of disk in the temporary folder, 22 GB of memory
    python benchmarks/bench_full.py --layers 2      # the same sizes, two layers
    python benchmarks/bench_full.py --hub DIR       # a checkpoint of your own

Prints the output of `msport bench` with the machine's limits; the last line is JSON. Transformers cannot keep experts
packed on a CPU: it would decode them to 84 GB in float32. `decode.py --model gpt-oss-20b --packed` compares two layers
with it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from full_size import timed, write_sample_of_full_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--hub", type=Path, help="a checkpoint to use instead of a synthetic one")
    parser.add_argument("--prompt", type=int, default=64, help="tokens (default 64)")
    parser.add_argument("--new-tokens", type=int, default=32, help="after the prompt (default 32)")
    parser.add_argument("--repeats", type=int, default=3, help="measured runs (default 3)")
    parser.add_argument("--folder", help="where to work; what is written there is removed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="msport-bench-full-", dir=arguments.folder) as scratch:
        hub, converted, report = arguments.hub or Path(scratch, "hub"), Path(scratch, "ms"), Path(scratch, "bench.json")
        if arguments.hub is None:
            write_sample_of_full_size(hub, arguments.layers)
        timed("convert", str(hub), "-o", str(converted), "--dtype", "mxfp4")
        sizes = ["--prompt", str(arguments.prompt), "--new-tokens", str(arguments.new_tokens)]
        runs = ["--warmup", "1", "--repeats", str(arguments.repeats), "--processes", "1"]
        timed("bench", str(converted), *sizes, *runs, "--json", str(report))
        print(json.dumps(_summary(json.loads(report.read_text(encoding="utf-8")))))


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    (session,) = report["sessions"]
    (result,) = session["results"]
    return {
        "benchmark": "bench_full",
        "packed": session["packed"],
        "load_seconds": session["load_seconds"],
        "first_token_seconds": result["first_token_seconds"]["p50"],
        "decode_seconds": result["decode_seconds"]["p50"],
        "share_of_bandwidth": result["memory_bandwidth"]["of_limit"],
        "share_of_arithmetic": result["arithmetic"]["of_limit"],
        "peak_resident_nbytes": session["memory"]["peak_resident"],
        "load_average": report["setup"]["load_average"],
    }


if __name__ == "__main__":
    main()
