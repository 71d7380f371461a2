"""The time and memory of converting a bf16 model to int4 and int8, compared with reading its files once.

    python benchmarks/convert_quantised.py                     # 4 GB
    python benchmarks/convert_quantised.py --size 16GB --folder /data

Writes a synthetic Llama checkpoint. In turn it reads the files once with a plain loop and converts them, each time
after the files were dropped from the page cache, so that both wait for the disk. CPU seconds are printed too: if other
programs run, wall times say little. Peaks are the processes' own VmHWM. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from passthrough import LAYER_NBYTES, PIECE_NBYTES, SHAPES

from msport.sample import write_sample
from msport.sizing.units import format_size, parse_size

DTYPES = ("int4", "int8")
MEMORY = "300MB"
MOST_TIMES_READING = 1.5

PROGRAM = """
import resource, sys
from msport.cli import main
try:
    main(sys.argv[1:])
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("MEASURED", used.ru_utime + used.ru_stime, peak.split()[1], file=sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """One conversion or reading: wall and CPU seconds, and the largest resident memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_nbytes: int = 0


def main() -> None:
    arguments = parse_arguments()
    layers = max(1, round(parse_size(arguments.size) / LAYER_NBYTES))
    with tempfile.TemporaryDirectory(prefix="msport-benchmark-", dir=arguments.folder) as name:
        folder = Path(name)
        overrides = {**SHAPES, "num_hidden_layers": layers}
        source = write_sample("llama", folder / "source", overrides=overrides, max_shard_size="1GB")
        nbytes = sum(file.stat().st_size for file in source.iterdir())
        runs: dict[str, list[Run]] = {way: [] for way in ("read", *DTYPES)}
        for _ in range(arguments.rounds):
            runs["read"].append(read(source))
            for dtype in DTYPES:
                runs[dtype].append(convert(source, folder / dtype, dtype))
                shutil.rmtree(folder / dtype)
    print(f"{format_size(nbytes)} of bfloat16, load average {os.getloadavg()[0]:.1f}")
    print(json.dumps({"benchmark": "convert_quantised", "nbytes": nbytes, **report(runs)}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="4GB", help="of the model (default 4GB)")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default 3)")
    parser.add_argument("--folder", help="where to work, with room for twice the size")
    return parser.parse_args()


def report(runs: dict[str, list[Run]]) -> dict[str, dict[str, float]]:
    """Prints a line for each way and returns the same as numbers."""
    reading = statistics.median(run.seconds for run in runs["read"])
    found = {}
    for way, each in runs.items():
        seconds, cpu = (statistics.median(getattr(run, name) for run in each) for name in ("seconds", "cpu_seconds"))
        peak = max(run.peak_nbytes for run in each)
        memory = f", {format_size(peak)} resident (limit {MEMORY})" if peak else ""
        times = f", {seconds / reading:.2f} times reading (limit {MOST_TIMES_READING})" if peak else ""
        print(f"{way:5} {seconds:6.2f} s, {cpu:6.2f} s of CPU{times}{memory}")
        found[way] = {"seconds": seconds, "cpu_seconds": cpu, "times_reading": seconds / reading, "peak_nbytes": peak}
    return found


def read(folder: Path) -> Run:
    drop_pages(folder)
    start, used = time.perf_counter(), time.process_time()
    buffer = bytearray(PIECE_NBYTES)
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return Run(time.perf_counter() - start, time.process_time() - used)


def convert(source: Path, output: Path, dtype: str) -> Run:
    drop_pages(source)
    start = time.perf_counter()
    options = [str(source), "-o", str(output), "--dtype", dtype, "--max-memory", MEMORY]
    command = [sys.executable, "-c", PROGRAM, "convert", *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    found = re.search(r"MEASURED (\S+) (\d+)", done.stderr)
    assert found is not None
    return Run(seconds, float(found[1]), int(found[2]) * 1024)


def drop_pages(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    main()
