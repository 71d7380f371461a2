"""The time of `msport convert` for a bf16 model in which nothing changes, compared with `cp` of the same files.

    python benchmarks/passthrough.py                     # 4 GB
    python benchmarks/passthrough.py --size 16GB --folder /data

Writes a synthetic Llama checkpoint and copies it with `cp -r` and with `msport convert`, several times in turn, each
followed by `sync`. msport also hashes every tensor; the row `hashes` is the time of the hashes alone, with as many
threads and with files in the page cache. If the filesystem clones files, `cp` takes no time, and msport only needs the
time of the hashes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msport.sample import write_sample
from msport.sizing.units import format_size, parse_size

SHAPES = {"hidden_size": 4096, "intermediate_size": 14336, "head_dim": 128, "num_attention_heads": 32}
LAYER_NBYTES = 2 * 4096 * (3 * 14336 + 2 * 4096 + 2 * 256)
PIECE_NBYTES = 1_000_000


def main() -> None:
    arguments = parse_arguments()
    layers = max(1, round(parse_size(arguments.size) / LAYER_NBYTES))
    with tempfile.TemporaryDirectory(prefix="msport-benchmark-", dir=arguments.folder) as name:
        folder = Path(name)
        source = write_sample(
            "llama", folder / "source", overrides={**SHAPES, "num_hidden_layers": layers}, max_shard_size="1GB"
        )
        nbytes = sum(file.stat().st_size for file in source.iterdir())
        ways: dict[str, Callable[[], None]] = {
            "cp": lambda: run("cp", "-r", str(source), str(folder / "copy")),
            "msport": lambda: run(
                sys.executable, "-m", "msport", "convert", str(source), "-o", str(folder / "converted"), "--json"
            ),
            "hashes": lambda: hash_all(source),
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, act in ways.items():
                times[way].append(timed(act))
                for made in ("copy", "converted"):
                    shutil.rmtree(folder / made, ignore_errors=True)
                os.sync()
    seconds = {way: statistics.median(each) for way, each in times.items()}
    for way, each in seconds.items():
        print(f"{way:8} {format_size(nbytes)} in {each:.2f} s, {nbytes / each / 1e9:.2f} GB/s")
    ratio, to_hashes = (round(seconds["msport"] / seconds[way], 3) for way in ("cp", "hashes"))
    print(
        f"ratio    msport takes {ratio} times as long as cp (limit 1.1), {to_hashes} times as long as the hashes alone"
    )
    rounded = {f"{way}_seconds": round(each, 3) for way, each in seconds.items()}
    print(
        json.dumps(
            {
                "benchmark": "passthrough",
                "nbytes": nbytes,
                **rounded,
                "ratio": ratio,
                "ratio_to_hashes": to_hashes,
                "limit": 1.1,
            }
        )
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="4GB", help="of the model (default 4GB)")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts (default 3)")
    parser.add_argument("--folder", help="where to work, with room for twice the size")
    return parser.parse_args()


def timed(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    os.sync()
    return time.perf_counter() - start


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def hash_all(folder: Path) -> None:
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        list(pool.map(hash_file, sorted(folder.glob("*.safetensors"))))


def hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_NBYTES):
            digest.update(piece)
    return digest.hexdigest()


if __name__ == "__main__":
    main()
