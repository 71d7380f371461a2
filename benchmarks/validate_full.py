"""Validates a synthetic gpt-oss-20b, 13.8 GB of MXFP4, one layer at a time.

    python benchmarks/validate_full.py                      # 28 GB of disk in the temporary folder
    python benchmarks/validate_full.py --layers 2           # the same sizes, two layers
    python benchmarks/validate_full.py --dtype mxfp4        # experts packed on our side
    python benchmarks/validate_full.py --hub DIR --html report.html

Prints the time and the peak memory of each step, which runs in a separate process; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from full_size import timed, write_sample_of_full_size

MEMORY_LIMIT, TIME_LIMIT = 20e9, 45 * 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--level", choices=["logits", "layers"], default="layers")
    parser.add_argument("--dtype", choices=["float32", "mxfp4"], default="float32")
    parser.add_argument("--hub", type=Path, help="a checkpoint to use instead of a synthetic one")
    parser.add_argument("--html", type=Path, help="keep the report as a page")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="msport-validate-full-") as scratch:
        folder = Path(scratch)
        hub = arguments.hub or folder / "hub"
        if arguments.hub is None:
            write_sample_of_full_size(hub, arguments.layers)
        timed("convert", str(hub), "-o", str(folder / "ms"), "--dtype", "mxfp4")
        page = folder / "report.html"
        report = folder / "report.json"
        options = ["--stream", "--level", arguments.level, "--dtype", arguments.dtype]
        outputs = ["--json", str(report), "--html", str(page)]
        seconds = timed("validate", str(folder / "ms"), *options, *outputs, expected=(0, 1))
        if arguments.html is not None:
            shutil.copy(page, arguments.html)
        print(json.dumps(_summary(json.loads(report.read_text(encoding="utf-8")), seconds)))


def _summary(report: dict[str, Any], seconds: float) -> dict[str, Any]:
    peak = report["peak_bytes"]
    return {
        "benchmark": "validate_full",
        "passed": report["passed"],
        "packed": report["packed"],
        "layers": len(report["layers"]) - 2,
        "tokens": sum(result["tokens"] for result in report["results"]),
        "relative_l2_max": max(max(result["relative_l2"]) for result in report["results"]),
        "first_departure": report["first_departure"],
        "seconds": round(seconds, 1),
        "phases": {name: round(value, 1) for name, value in report["seconds"].items()},
        "peak_gb": round(peak / 1e9, 2),
        "within_memory": peak <= MEMORY_LIMIT,
        "within_time": seconds <= TIME_LIMIT,
        "versions": report["versions"],
    }


if __name__ == "__main__":
    main()
