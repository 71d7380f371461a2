"""How fast, and in how much memory, `msport convert` turns MXFP4 into bfloat16, beside a plain copy of the same bytes.

    python benchmarks/convert.py                     # 4 GB of output
    python benchmarks/convert.py --size 16GB --folder /data

Writes a synthetic gpt-oss checkpoint whose experts have the 20b's shapes, converts it in a process of its own, then
copies the result; both end with fsync. The peak is that process's VmHWM. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from msport.sample import write_sample
from msport.sizing.units import format_size, parse_size

# The 20b's layers with a quarter of its experts, and a sixth of its vocabulary: layers of 450 MB make up the size.
SHAPES = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "vocab_size": 32768,
}
EMBEDDINGS_NBYTES = 2 * 2 * 32768 * 2880
LAYER_NBYTES = 2 * 2880 * (8 * 3 * 2880 + 64 * (2 * 64 + 2 * 8))

CHILD = """
import sys
from msport.cli import main
try:
    main(sys.argv[1:])
finally:
    print(open("/proc/self/status").read(), file=sys.stderr)
"""
COPY_NBYTES = 1 << 24


def main() -> None:
    arguments = parse_arguments()
    layers = max(1, round((parse_size(arguments.size) - EMBEDDINGS_NBYTES) / LAYER_NBYTES))
    with tempfile.TemporaryDirectory(prefix="msport-benchmark-", dir=arguments.folder) as folder:
        source, output, copy = (Path(folder) / name for name in ("source", "output", "copy"))
        write_sample("gpt-oss", source, overrides={**SHAPES, "num_hidden_layers": layers})
        os.sync()
        summary, peak = convert(source, output, arguments.max_memory)
        nbytes = folder_nbytes(output)
        os.sync()
        copy_seconds = copy_folder(output, copy)
        result = {
            "benchmark": "convert",
            "source_nbytes": folder_nbytes(source),
            "output_nbytes": nbytes,
            "peak_resident_nbytes": peak,
            "convert_seconds": summary["seconds"],
            "convert_gb_per_second": round(nbytes / summary["seconds"] / 1e9, 3),
            "copy_seconds": round(copy_seconds, 3),
            "copy_gb_per_second": round(nbytes / copy_seconds / 1e9, 3),
            "convert_to_copy": round(summary["seconds"] / copy_seconds, 3),
        }
    print(f"source   {format_size(result['source_nbytes'])}: MXFP4 and bfloat16, {layers} layers")
    print(f"convert  {format_size(nbytes)} in {summary['seconds']:.1f} s, peak {format_size(peak)} resident")
    print(f"copy     {format_size(nbytes)} in {copy_seconds:.1f} s")
    print(f"ratio    converting takes {result['convert_to_copy']} times as long as copying the result")
    print(json.dumps(result))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="4GB", help="of the output (default 4GB)")
    parser.add_argument("--max-memory", default="1GB", help="passed to msport convert (default 1GB, as there)")
    parser.add_argument("--folder", help="where to work, with room for 2.5 times the size")
    return parser.parse_args()


def convert(source: Path, output: Path, max_memory: str) -> tuple[dict[str, Any], int]:
    """The summary that `msport convert --json` prints, and the peak resident bytes of its process."""
    options = ["convert", str(source), "-o", str(output), "--max-memory", max_memory, "--json"]
    child = subprocess.run([sys.executable, "-c", CHILD, *options], capture_output=True, text=True)
    if child.returncode:
        sys.exit(child.stderr)
    peak = re.search(r"VmHWM:\s+(\d+) kB", child.stderr)
    return json.loads(child.stdout), int(peak[1]) * 1024


def copy_folder(source: Path, target: Path) -> float:
    """Seconds that it takes to copy every file of `source` and make the copies durable."""
    start = time.perf_counter()
    target.mkdir()
    for file in source.iterdir():
        with file.open("rb") as reader, (target / file.name).open("wb", buffering=0) as writer:
            while piece := reader.read(COPY_NBYTES):
                writer.write(piece)
            os.fsync(writer.fileno())
    return time.perf_counter() - start


def folder_nbytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


if __name__ == "__main__":
    main()
