"""What starting a kernel costs in a graph, beside an empty operator and beside the kernel without MindSpore.

    python benchmarks/launch.py [--operators 300] [--rounds 30]
    MSPORT_THREADS=1 python benchmarks/launch.py

Each graph is a chain of one operator, of a tiny size or of a decoding step of SmolLM2-135M. The peer is a chain of an
operator that does nothing: it costs what MindSpore needs to launch a kernel. The limit is the same C++ function called
in a loop, without MindSpore. All graphs are measured in turn in one process; figures are the best of the rounds. The
weights stay in the processor's caches, so these are not the times of a model's products. The last line is JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from msport.bench.measure.machine import processor
from msport.msmodels.engine.compiler import Compiled, compile_graph
from msport.msmodels.loading import configure
from msport.native import library

_SOURCE = """
#include <chrono>
#include <cstdint>
using Operator = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);
extern "C" int empty(int, void**, int*, int64_t**, const char**, void*, void*) { return 0; }
extern "C" double microseconds(Operator run, int times, int count, void** params, int* dims, int64_t** shapes) {
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < times; ++i)
    if (run(count, params, dims, shapes, nullptr, nullptr, nullptr)) return -1;
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count() / times;
}
"""
_TIMES = 50
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """An operator that maps ``x [1, size]`` and `others` to the shape of x, in a chain."""

    name: str
    function: str
    size: int
    others: tuple[Array, ...]


def make_cases() -> list[Case]:
    cases = [Case("empty", "empty", 576, ())]
    for size, intermediate in ((64, 64), (576, 1536)):
        ones, epsilon = np.ones(size, np.float32), np.full(1, 1e-5, np.float32)
        cases += [
            Case(f"rms_norm {size}", "rms_norm", size, (ones, epsilon)),
            Case(f"gated_silu {intermediate}", "gated_silu", intermediate, (np.ones((1, intermediate), np.float32),)),
            Case(f"linear {size} x {size}", "linear", size, (np.eye(size, dtype=np.float32),)),
        ]
    return cases


class Chain(nn.Cell):
    """`count` times the operator, each on the output of the one before."""

    def __init__(self, operator: Any, others: Sequence[Array], count: int) -> None:
        super().__init__()
        self.operator = operator
        self.others = tuple(Tensor(array) for array in others)
        self.count = count

    def construct(self, x: Tensor) -> Tensor:
        for _ in range(self.count):
            x = self.operator(x, *self.others)
        return x


def main() -> None:
    arguments = parse_arguments()
    operators = library()
    if operators is None:
        raise SystemExit("no C++ compiler was found; install g++")
    with tempfile.TemporaryDirectory(prefix="msport-benchmark-") as folder:
        probe = compile_probe(Path(folder))
        cases = make_cases()
        paths = [str(probe if case.function == "empty" else operators) for case in cases]
        configure("CPU")
        chains = [chain(case, path, arguments.operators) for case, path in zip(cases, paths, strict=True)]
        best = measure(chains, arguments.rounds)
        alone = [best_alone(case, path, probe, arguments.rounds) for case, path in zip(cases, paths, strict=True)]
    rows = [summarise(c, t, a, best[0], arguments.operators) for c, t, a in zip(cases, best, alone, strict=True)]
    report(rows)
    result = {"benchmark": "launch", "processor": processor(), "threads": os.environ.get("MSPORT_THREADS")}
    print(json.dumps({**result, "operators": arguments.operators, "cases": rows}))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operators", type=int, default=300, help="in each graph (default 300)")
    parser.add_argument("--rounds", type=int, default=30, help="measurements of each graph (default 30)")
    return parser.parse_args()


def compile_probe(folder: Path) -> Path:
    source, target = folder / "probe.cpp", folder / "probe.so"
    source.write_text(_SOURCE, encoding="utf-8")
    command = [os.environ.get("CXX", "g++"), "-O2", "-shared", "-fPIC", str(source), "-o", str(target)]
    subprocess.run(command, check=True)
    return target


def chain(case: Case, path: str, count: int) -> Callable[[], None]:
    """A function that runs the case's graph once."""
    operator = ms.ops.Custom(f"{path}:{case.function}", lambda x, *_: x, lambda x, *_: x, func_type="aot")
    x = Tensor(np.ones((1, case.size), np.float32))
    compiled: Compiled = compile_graph(Chain(operator, case.others, count), [x], "cpu")

    def run() -> None:
        compiled.run([x]).asnumpy()

    return run


def measure(chains: Sequence[Callable[[], None]], rounds: int) -> list[float]:
    """The best microseconds of one run of each chain, all of them in turn."""
    best = [float("inf")] * len(chains)
    for _ in range(rounds + 5):
        for index, run in enumerate(chains):
            began = time.perf_counter()
            run()
            best[index] = min(best[index], 1e6 * (time.perf_counter() - began))
    return best


def best_alone(case: Case, path: str, probe: Path, rounds: int) -> float:
    return min(by_itself(case, path, probe) for _ in range(rounds))


def by_itself(case: Case, path: str, probe: Path) -> float:
    """Microseconds of one call of the C++ function."""
    x = np.ones((1, case.size), np.float32)
    arrays = [x, *case.others, np.empty_like(x)]
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    run = ctypes.CDLL(str(probe)).microseconds
    run.restype = ctypes.c_double
    took: float = run(
        getattr(ctypes.CDLL(path), case.function),
        _TIMES,
        len(arrays),
        (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays)),
        (ctypes.c_int * len(arrays))(*(array.ndim for array in arrays)),
        (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(shape) for shape in shapes)),
    )
    if took < 0:
        raise SystemExit(f"{case.function} refused its arguments")
    return took


def summarise(case: Case, total: float, alone: float, empty: float, count: int) -> dict[str, Any]:
    """Microseconds per operator. The fixed cost of running a graph is shared by all of its operators."""
    launch = total / count - alone
    return {"case": case.name, "in_graph": total / count, "alone": alone, "launch": launch, "empty": empty / count}


def report(rows: Sequence[dict[str, Any]]) -> None:
    print(f"{'microseconds':20}{'in a graph':>12}{'by itself':>12}{'launch':>10}{'times an empty one':>20}")
    for row in rows:
        figures = f"{row['in_graph']:>12.2f}{row['alone']:>12.2f}{row['launch']:>10.2f}"
        print(f"{row['case']:20}{figures}{row['launch'] / row['empty']:>20.2f}")


if __name__ == "__main__":
    main()
