"""How fast MXFP4 is decoded to bfloat16: Transformers, msport, and a plain memory copy, from one run.

    python benchmarks/mxfp4.py [--experts 4] [--rows 5760] [--columns 2880] [--threads 2] [--rounds 5]

The converter uses the row "msport"; "NumPy" is the same without a C++ compiler.

The default is four experts of gpt-oss-20b's ``gate_up_proj``. Its bytes are uniformly random: the worst case for a
table, of which real weights use fewer entries. Figures are the best of several rounds in GB/s of bfloat16 output. The
limit is a copy, which reads and writes as much. Transformers returns ``[E, in, out]`` in fresh memory, and so does the
row "fresh" of msport; the converter reuses its buffers, as the other rows do. Results are compared bit by bit; the last
line is JSON. Needs the extra ``reference``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from msport.encodings import mxfp4, mxfp4_kernel

Array = NDArray[Any]

# The range of gpt-oss's scales: 2**-17 to 2**0.
SCALES = (110, 128)


@dataclass(frozen=True)
class Arrays:
    """Packed weights, and memory for the results."""

    blocks: Array  # [experts, rows, columns / 32, 16]
    scales: Array  # [experts, rows, columns / 32]
    decoded: Array  # [experts, columns, rows]
    copied: Array


CASES: dict[str, Callable[[Arrays, slice], object]] = {
    "memory copy": lambda a, rows: np.copyto(a.copied[..., rows], a.decoded[..., rows]),
    "msport": lambda a, rows: mxfp4.decode_transposed(a.blocks[:, rows], a.scales[:, rows], out=a.decoded[..., rows]),
    "msport, fresh": lambda a, rows: mxfp4.decode_transposed(a.blocks[:, rows], a.scales[:, rows]),
}


def main() -> int:
    options = parse_options()
    load = os.getloadavg()[0]
    arrays = random_weights(options.experts, options.rows, options.columns)
    counts = sorted({1, options.threads})

    # One library after the other, never in turn: idle threads of one slow down the other.
    def measure(case: str) -> dict[int, float]:
        return {count: best(options.rounds, on_threads(count, case, arrays)) for count in counts}

    with mock.patch.object(mxfp4_kernel, "decode", return_value=False):
        numpy_seconds = measure("msport")
    from_numpy = arrays.decoded.copy()
    native_seconds = {case: measure(case) for case in CASES}
    same = np.array_equal(from_numpy, arrays.decoded)
    del from_numpy
    peer_seconds, identical = measure_transformers(arrays, counts, options.rounds)
    seconds = {"Transformers": peer_seconds, "NumPy": numpy_seconds, **native_seconds}
    identical &= same
    report(seconds, arrays.decoded.nbytes, identical, load)
    return 0 if identical else 1


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--rows", type=int, default=5760)
    parser.add_argument("--columns", type=int, default=2880, help="a multiple of 32")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def random_weights(experts: int, rows: int, columns: int) -> Arrays:
    generator = np.random.default_rng(0)
    shape = (experts, rows, columns // mxfp4.BLOCK_VALUES)
    return Arrays(
        blocks=generator.integers(0, 256, (*shape, mxfp4.BLOCK_BYTES), dtype=np.uint8),
        scales=generator.integers(*SCALES, shape, dtype=np.uint8),
        decoded=np.ones((experts, columns, rows), np.uint16),
        copied=np.ones((experts, columns, rows), np.uint16),
    )


def on_threads(count: int, case: str, arrays: Arrays) -> Callable[[], object]:
    rows = arrays.blocks.shape[1]
    edges = [rows * part // count for part in range(count + 1)]

    def run() -> None:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda part: CASES[case](arrays, slice(edges[part], edges[part + 1])), range(count)))

    return run


def measure_transformers(arrays: Arrays, counts: list[int], rounds: int) -> tuple[dict[int, float], bool]:
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks, scales = torch.from_numpy(arrays.blocks), torch.from_numpy(arrays.scales)
    seconds = {}
    for count in counts:
        torch.set_num_threads(count)
        seconds[count] = best(rounds, lambda: convert_moe_packed_tensors(blocks, scales))
    reference = convert_moe_packed_tensors(blocks, scales).view(torch.int16).numpy().view(np.uint16)
    return seconds, np.array_equal(arrays.decoded, reference)


def best(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def report(seconds: dict[str, dict[int, float]], nbytes: int, identical: bool, load: float) -> None:
    verdict = "bit-identical with" if identical else "DIFFERENT from"
    compiled = "compiled" if mxfp4_kernel.available() else "NOT compiled: its rows are NumPy's"
    print(f"{nbytes / 1e9:.2f} GB of bfloat16; {verdict} Transformers; msport is {compiled}")
    print(f"load average before: {load:.2f} on {os.cpu_count()} CPUs; only an idle machine gives figures to compare\n")
    print(f"{'':26}{'threads':>8}{'GB/s':>8}{'x Transformers':>16}{'% of copy':>11}")
    speeds = {case: {n: nbytes / t / 1e9 for n, t in times.items()} for case, times in seconds.items()}
    ratios = {case: {n: speeds[case][n] / speeds["Transformers"][n] for n in speeds[case]} for case in speeds}
    for case, by_threads in speeds.items():
        for count, speed in by_threads.items():
            share = 100 * speed / speeds["memory copy"][count]
            print(f"{case:26}{count:>8}{speed:>8.2f}{ratios[case][count]:>16.1f}{share:>11.0f}")
    summary = {
        "gb_per_s": speeds,
        "times_transformers": ratios,
        "identical": identical,
        "compiled": mxfp4_kernel.available(),
        "load_average": load,
    }
    print(json.dumps({"benchmark": "mxfp4", **summary}))


if __name__ == "__main__":
    sys.exit(main())
