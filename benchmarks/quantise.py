"""How much int4 and int8 lose, beside simpler rules, and how fast bfloat16 weights become codes. One run, no other
library.

    python benchmarks/quantise.py [--model DIR] [--rows 4096] [--columns 4096] [--rounds 5]

The error is the sum of squared errors of all weights over their sum of squares, on Gaussian weights and, with
``--model``, on every matrix of the layers of a checkpoint as the Hub has it. Beside msport stand the usual scale
(largest magnitude / 7 or / 127) and the rules of llama.cpp's Q4_0 and Q8_0, written from ggml-quants.c and decoded with
their float16 scales; a ratio below 1 is less error than they have.

The speed is GB/s of bfloat16 read by one thread, in the time that this thread had a core, the best of several rounds
taken in turn. The limit is to read the same bytes and nothing else. "NumPy" is msport without a C++ compiler. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint import open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, FLOATING, cast
from msport.encodings import Grouped, quantise_kernel
from msport.encodings.quantise import quantise

Array = NDArray[Any]
GROUP = 32
ENCODINGS = {
    "int4": Grouped(4),
    "int4, offsets": Grouped(4, offsets=True),
    "int4, groups of 64": Grouped(4, 64),
    "int8": Grouped(8),
    "int8, offsets": Grouped(8, offsets=True),
}


def q4_0(groups: Array) -> Array:
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=1)[:, None], axis=1)
    scale = np.where(largest == 0, 1, largest / np.float32(-8)).astype(np.float32)
    return (np.minimum(15, np.trunc(groups * (1 / scale) + np.float32(8.5))) - 8) * half(scale)


def q8_0(groups: Array) -> Array:
    scale = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    return np.round(groups * (1 / scale)) * half(scale)


def usual(bits: int) -> Callable[[Array], Array]:
    most = np.float32(2 ** (bits - 1) - 1)

    def decoded(groups: Array) -> Array:
        scale = np.abs(groups).max(axis=1, keepdims=True) / most
        scale = cast(cast(np.where(scale == 0, 1, scale).astype(np.float32), FLOAT32, BFLOAT16), BFLOAT16, FLOAT32)
        return np.clip(np.rint(groups / scale), -most - 1, most) * scale

    return decoded


def half(scale: Array) -> Array:
    return scale.astype(np.float16).astype(np.float32)


RULES = {"Q4_0": q4_0, "usual int4": usual(4), "Q8_0": q8_0, "usual int8": usual(8)}


def main() -> int:
    options = parse_options()
    load = os.getloadavg()[0]
    gaussian = np.random.default_rng(0).standard_normal((options.rows, options.columns), np.float32)
    source = cast(gaussian * np.float32(0.02), FLOAT32, BFLOAT16)
    lost = {"Gaussian": errors([source])}
    if options.model:
        lost[options.model.name] = errors(matrices(options.model))
    show_errors(lost)
    speeds = measure(source, options.rounds)
    show_speeds(speeds, load)
    summary = {"errors": lost, "gb_per_s": speeds, "compiled": quantise_kernel.available(), "load_average": load}
    print(json.dumps({"benchmark": "quantise", **summary}))
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a folder as the Hub has it; its layers are quantised too")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=4096, help="a multiple of 128")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def matrices(folder: Path) -> Iterator[Array]:
    """The matrices of the layers, as bfloat16."""
    with open_checkpoint(folder) as checkpoint:
        for info in checkpoint.tensors.values():
            if ".layers." in info.name and len(info.shape) == 2 and info.dtype in FLOATING:
                yield cast(checkpoint.read(info.name), info.dtype, BFLOAT16)


def errors(sources: Any) -> dict[str, float]:
    """The relative squared error of each encoding and rule; encodings whose groups do not fit are left out."""
    totals: dict[str, float] = {}
    squares: dict[str, float] = {}
    for source in sources:
        weights = cast(source, BFLOAT16, FLOAT32)
        groups = weights.reshape(-1, GROUP)
        for name, encoding in ENCODINGS.items():
            if source.shape[1] % encoding.group == 0:
                decoded = encoding.decode(quantise(source, BFLOAT16, encoding), FLOAT32)
                add(totals, squares, name, weights, decoded)
        for name, rule in RULES.items():
            add(totals, squares, name, groups, rule(groups))
    return {name: totals[name] / squares[name] for name in totals}


def add(totals: dict[str, float], squares: dict[str, float], name: str, weights: Array, decoded: Array) -> None:
    difference = weights - decoded
    totals[name] = totals.get(name, 0) + float(np.vdot(difference, difference))
    squares[name] = squares.get(name, 0) + float(np.vdot(weights, weights))


def measure(source: Array, rounds: int) -> dict[str, float]:
    few = source[:64]
    cases: dict[str, tuple[Array, Callable[[], object]]] = {"reading": (source, source.view(np.uint64).max)}
    for name, encoding in ENCODINGS.items():
        out = [np.ones(part.shape, part.dtype.storage) for part in encoding.parts("", source.shape)]
        cases[name] = (source, lambda encoding=encoding, out=out: quantise(source, BFLOAT16, encoding, out))
    cases["int4, NumPy"] = (few, lambda: in_numpy(few))
    seconds = dict.fromkeys(cases, float("inf"))
    for _ in range(rounds):
        for name, (_array, work) in cases.items():
            begin = time.thread_time()
            work()
            seconds[name] = min(seconds[name], time.thread_time() - begin)
    return {name: array.nbytes / seconds[name] / 1e9 for name, (array, _work) in cases.items()}


def in_numpy(source: Array) -> None:
    with mock.patch.object(quantise_kernel, "quantise", return_value=None):
        quantise(source, BFLOAT16, Grouped(4))


def show_errors(lost: dict[str, dict[str, float]]) -> None:
    print(f"{'weights':16}{'encoding':24}{'error':>11}{'x llama.cpp':>13}{'x usual':>10}")
    for weights, found in lost.items():
        for name, error in found.items():
            bits = 8 if "8" in name.split(",")[0] else 4
            peer, plain = found["Q8_0" if bits == 8 else "Q4_0"], found[f"usual int{bits}"]
            print(f"{weights:16}{name:24}{error:>11.3e}{error / peer:>13.3f}{error / plain:>10.3f}")


def show_speeds(speeds: dict[str, float], load: float) -> None:
    compiled = "compiled" if quantise_kernel.available() else "NOT compiled: all is NumPy's"
    print(f"\nthe quantiser is {compiled}; load average before: {load:.2f} on {os.cpu_count()} CPUs")
    print(f"{'one thread':24}{'GB/s':>8}{'x reading time':>16}")
    for name, speed in speeds.items():
        print(f"{name:24}{speed:>8.3f}{speeds['reading'] / speed:>16.1f}")


if __name__ == "__main__":
    sys.exit(main())
