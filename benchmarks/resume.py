"""The cost of reading back the finished tensors when an interrupted conversion resumes.

    python benchmarks/resume.py                      # 3 GB of output
    python benchmarks/resume.py --size 16GB --folder /data

Converts a synthetic gpt-oss checkpoint with the 20b's shapes, stops when every tensor is written, drops its files from
the page cache, and runs the same conversion again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from synthetic import small_model, write_checkpoint

from msport.convert import convert_checkpoint
from msport.progress import Step
from msport.sizing.units import format_size, parse_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="3GB", help="of the output (default 3GB)")
    parser.add_argument("--folder", help="where to work, with room for 1.5 times the size")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="msport-benchmark-", dir=arguments.folder) as folder:
        source, output = Path(folder) / "source", Path(folder) / "output"
        write_checkpoint(source, small_model(parse_size(arguments.size)))
        start = time.perf_counter()
        stop_at_the_end(source, output)
        converting = time.perf_counter() - start
        for file in (Path(folder) / ".output.msport-partial").rglob("*"):
            if file.is_file():
                drop_from_cache(file)
        steps: list[tuple[float, Step]] = []
        convert_checkpoint(source, output, progress=lambda step: steps.append((time.perf_counter(), step)))
    checks = [(moment, step) for moment, step in steps if step.phase == "check what is there"]
    nbytes, checking = checks[-1][1].total, checks[-1][0] - checks[0][0]
    result = {
        "benchmark": "resume",
        "nbytes": nbytes,
        "convert_seconds": round(converting, 3),
        "check_seconds": round(checking, 3),
        "check_gb_per_second": round(nbytes / checking / 1e9, 3),
        "check_to_convert": round(checking / converting, 3),
    }
    print(f"convert  {format_size(nbytes)} in {converting:.1f} s, stopped before it was finished")
    print(f"check    {format_size(nbytes)} read back in {checking:.1f} s, {result['check_gb_per_second']} GB/s")
    print(f"ratio    reading back takes {result['check_to_convert']} times as long as converting")
    print(json.dumps(result))


def stop_at_the_end(source: Path, output: Path) -> None:
    def stop(step: Step) -> None:
        if step.done == step.total:
            raise KeyboardInterrupt

    try:
        convert_checkpoint(source, output, progress=stop)
    except KeyboardInterrupt:
        return


def drop_from_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


if __name__ == "__main__":
    main()
