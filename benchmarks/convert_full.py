"""gpt-oss-20b at full size: the cost of a conversion compared with writing the same bytes, and of planning the 120b.

    python benchmarks/convert_full.py                     # needs 57 GB of disk, and some minutes
    python benchmarks/convert_full.py --layers 4          # a part of the 20b
    python benchmarks/convert_full.py --scale             # outputs of 1, 4 and 16 GB

Makes a synthetic checkpoint in the Hub's layout with the real shapes (13.8 GB), writes as many bytes as its bfloat16
form has (41.8 GB) with a plain loop, and converts it to bfloat16, to ``.ckpt`` and to packed MXFP4, each in a separate
process. The plan of the 120b is made from files that have only headers. Every writer ends with fsync, and every output
is removed before the next. Peaks are the processes' own VmHWM. If other programs run, wall times say little, because a
conversion needs more of the processor than a plain loop; so CPU seconds are printed too. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthetic import (
    GPT_OSS_20B,
    GPT_OSS_120B,
    output_nbytes,
    small_model,
    source_nbytes,
    write_checkpoint,
    write_headers,
)

from msport.sizing.units import format_size

MOST_MEMORY = 10**9
MOST_TIMES_WRITING = 1.3
MOST_PLAN_SECONDS = 2.0
MOST_PLAN_MEMORY = 200 * 10**6

# Space left for other programs, and for data that are no tensors.
SPARE_DISK = 10**9
WRITE_NBYTES = 1 << 24
FILE_NBYTES = 5 * 10**9

# Not `ru_maxrss`, which starts at the parent's value, even after exec.
PROGRAM = """
import sys
from msport.cli import main
try:
    main(sys.argv[1:])
finally:
    print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""

CONVERSIONS = {
    "bfloat16": ["--dtype", "bfloat16"],
    "bfloat16, .ckpt": ["--dtype", "bfloat16", "--format", "ckpt", "--max-shard-size", "1GB"],
    "packed MXFP4": ["--dtype", "mxfp4"],
}
SCALES = (10**9, 4 * 10**9, 16 * 10**9)


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall time, and the processor's."""

    seconds: float
    cpu_seconds: float


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the folder is removed
    shapes = {
        **GPT_OSS_20B,
        "num_hidden_layers": arguments.layers,
        "num_local_experts": arguments.experts,
        "vocab_size": arguments.vocabulary,
    }
    models = [small_model(nbytes) for nbytes in SCALES] if arguments.scale else [shapes]
    check_disk(arguments.folder, max(map(source_nbytes, models)) + max(map(output_nbytes, models)))
    load = os.getloadavg()[0]
    print(f"load average before: {load:.2f} on {os.cpu_count()} CPUs; only an idle machine gives times to compare")
    with tempfile.TemporaryDirectory(prefix="msport-benchmark-", dir=arguments.folder) as parent:
        plan = measure_plan(Path(parent))
        kinds = ["bfloat16"] if arguments.scale else list(CONVERSIONS)
        results = [measure(Path(parent), model, kinds, arguments.max_memory) for model in models]
    print(json.dumps({"benchmark": "convert_full", "load_average": load, "plan_120b": plan, "models": results}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=int, default=GPT_OSS_20B["num_hidden_layers"], help="of 24 (default all)")
    parser.add_argument("--experts", type=int, default=GPT_OSS_20B["num_local_experts"], help="of 32 (default all)")
    parser.add_argument("--vocabulary", type=int, default=GPT_OSS_20B["vocab_size"], help="of 201088 (default all)")
    parser.add_argument("--scale", action="store_true", help="small models whose outputs are 1, 4 and 16 GB instead")
    parser.add_argument("--max-memory", default="1GB", help="passed to msport convert (default 1GB, as there)")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="where to work")
    return parser.parse_args()


def check_disk(folder: str, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes + SPARE_DISK:
        needed = format_size(nbytes + SPARE_DISK)
        sys.exit(f"{folder}: {format_size(free)} free, {needed} needed; name another by --folder, or fewer --layers")


def measure_plan(parent: Path) -> dict[str, Any]:
    """The cost of `msport convert --dry-run` for the 120b."""
    source = parent / "120b"
    write_headers(source, GPT_OSS_120B)
    options = ["convert", str(source), "-o", str(parent / "planned"), "--dry-run", "--json"]
    # It exits with 2 if the disk is too small for the plan.
    document, cost, peak = run_msport(options, accepted=(0, 2))
    seconds = cost.seconds
    shutil.rmtree(source)
    print(
        f"plan of the 120b: {len(document['tensors'])} tensors, {format_size(document['nbytes'])}, from headers in"
        f" {seconds:.2f} s (at most {MOST_PLAN_SECONDS:.0f}), peak {format_size(peak)}"
        f" (at most {format_size(MOST_PLAN_MEMORY)})",
        flush=True,
    )
    return {
        "seconds": round(seconds, 3),
        "peak_resident_nbytes": peak,
        "output_nbytes": document["nbytes"],
        "met": seconds <= MOST_PLAN_SECONDS and peak <= MOST_PLAN_MEMORY,
    }


def measure(parent: Path, shapes: Mapping[str, Any], kinds: list[str], max_memory: str) -> dict[str, Any]:
    """Writes one model, writes as many bytes with the plain writer, and converts the model to each kind."""
    source, output = parent / "source", parent / "output"
    write_checkpoint(source, shapes)
    os.sync()
    nbytes = output_nbytes(shapes)
    print(
        f"\n{shapes['num_hidden_layers']} layers of {shapes['num_local_experts']} experts:"
        f" {format_size(source_nbytes(shapes))} of MXFP4 and bfloat16",
        flush=True,
    )
    # A disk may become slower during writing, so the limit is measured before and after, and both are printed.
    writing = [write_plainly(output, nbytes)]
    conversions = {}
    for kind in kinds:
        conversions[kind] = convert(source, output, [*CONVERSIONS[kind], "--max-memory", max_memory])
        if kind == "bfloat16":
            writing.append(write_plainly(output, nbytes))
    shutil.rmtree(source)
    report(conversions, nbytes, writing)
    ratio = conversions["bfloat16"]["seconds"] / mean_seconds(writing)
    return {
        "shapes": dict(shapes),
        "plain_writer": {"nbytes": nbytes, "runs": [asdict(cost) for cost in writing]},
        "conversions": conversions,
        "convert_to_writing": round(ratio, 3),
        "met": ratio <= MOST_TIMES_WRITING
        and all(conversion["peak_resident_nbytes"] <= MOST_MEMORY for conversion in conversions.values()),
    }


def write_plainly(folder: Path, nbytes: int) -> Cost:
    """The cost of a plain loop that writes and syncs that many bytes, in files as large as msport's."""
    os.sync()
    piece = memoryview(os.urandom(WRITE_NBYTES))
    start, cpu = time.perf_counter(), time.process_time()
    folder.mkdir()
    for begin in range(0, nbytes, FILE_NBYTES):
        left = min(FILE_NBYTES, nbytes - begin)
        with (folder / f"{begin}").open("wb", buffering=0) as file:
            while left:
                left -= file.write(piece[:left])
            os.fsync(file.fileno())
    cost = Cost(time.perf_counter() - start, time.process_time() - cpu)
    shutil.rmtree(folder)
    return cost


def convert(source: Path, output: Path, options: list[str]) -> dict[str, Any]:
    """Bytes, cost and peak memory of `msport convert`; removes the output."""
    os.sync()
    _, cost, peak = run_msport(["convert", str(source), "-o", str(output), *options, "--json"])
    nbytes = sum(file.stat().st_size for file in output.iterdir())
    shutil.rmtree(output)
    return {"nbytes": nbytes, **asdict(cost), "peak_resident_nbytes": peak}


def run_msport(options: list[str], accepted: tuple[int, ...] = (0,)) -> tuple[dict[str, Any], Cost, int]:
    """The JSON that a process prints, its cost from start to end, and its peak memory."""
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, printed.fileno(), 1), (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]
        child = os.posix_spawn(
            sys.executable, [sys.executable, "-c", PROGRAM, *options], os.environ, file_actions=actions
        )
        try:
            _, status, usage = os.wait4(child, 0)
        except BaseException:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        seconds = time.perf_counter() - start
        text, errors = (file.seek(0) or file.read().decode() for file in (printed, said))
    code = os.waitstatus_to_exitcode(status)
    if code not in accepted or not text:
        sys.exit(f"msport {' '.join(options)} ended with {code}: {errors}")
    peak = re.search(r"VmHWM:\s+(\d+) kB", errors)
    return json.loads(text), Cost(seconds, usage.ru_utime + usage.ru_stime), int(peak[1]) * 1024


def mean_seconds(costs: list[Cost]) -> float:
    return sum(cost.seconds for cost in costs) / len(costs)


def report(conversions: Mapping[str, Mapping[str, Any]], nbytes: int, writing: list[Cost]) -> None:
    print(f"{'':24}{'GB':>8}{'seconds':>10}{'CPU s':>8}{'GB/s':>8}{'peak MB':>9}{'x writing':>11}")
    for cost in writing:
        gigabytes, speed = nbytes / 1e9, nbytes / cost.seconds / 1e9
        print(f"{'plain loop':24}{gigabytes:>8.2f}{cost.seconds:>10.2f}{cost.cpu_seconds:>8.1f}{speed:>8.2f}")
    for kind, result in conversions.items():
        size, seconds, cpu = result["nbytes"], result["seconds"], result["cpu_seconds"]
        times = seconds / (mean_seconds(writing) * size / nbytes)
        peak = result["peak_resident_nbytes"] / 1e6
        speed = size / seconds / 1e9
        print(f"{kind:24}{size / 1e9:>8.2f}{seconds:>10.2f}{cpu:>8.1f}{speed:>8.2f}{peak:>9.0f}{times:>11.2f}")
    print(f"required of bfloat16: at most {MOST_TIMES_WRITING} times writing, {MOST_MEMORY // 10**6} MB", flush=True)


if __name__ == "__main__":
    main()
