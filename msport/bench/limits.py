"""How fast this machine reads memory and multiplies: what every achieved figure is set beside.

Several probes measure each, in a process of their own, with the cores that the models get; the fastest round of the
fastest probe is the limit. Nothing is taken from a data sheet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import psutil

from msport.child import Progress

_BUFFER_NBYTES = 1 << 29  # beyond the share of the last-level cache that one process can hope for
_ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
_MATRIX = 8192
_PRODUCTS = ((128, 4096), (2048, 2048))  # rows, and the side of a square weight: a prefill chunk's, and a large one
_ROUNDS = 5
_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Probe:
    """One way of measuring a limit: bytes or floating-point operations a second, best and median of `rounds`."""

    method: str
    best: float
    median: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine reached: `memory` in bytes read a second, `arithmetic` in operations a second."""

    memory: tuple[Probe, ...]
    arithmetic: tuple[Probe, ...]

    @property
    def bandwidth(self) -> Probe:
        return max(self.memory, key=lambda probe: probe.best)

    @property
    def matmul(self) -> Probe:
        return max(self.arithmetic, key=lambda probe: probe.best)

    def __add__(self, other: Limits) -> Limits:
        """The limits of two measurements of one machine."""
        return Limits(self.memory + other.memory, self.arithmetic + other.arithmetic)

    def to_document(self) -> dict[str, Any]:
        return {
            "memory_bytes_per_second": self.bandwidth.best,
            "matmul_flops_per_second": self.matmul.best,
            "memory": [asdict(probe) for probe in self.memory],
            "arithmetic": [asdict(probe) for probe in self.arithmetic],
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Limits:
        return cls(
            tuple(Probe(**probe) for probe in document["memory"]),
            tuple(Probe(**probe) for probe in document["arithmetic"]),
        )


def measure(dtype: str, threads: int, seconds: float = _SECONDS, *, progress: Progress) -> dict[str, Any]:
    """The document of `Limits` for a model in `dtype`; runs in a child. `seconds` is the time for a probe."""
    memory, arithmetic = [], []
    probes = len(_PRODUCTS) + 2
    progress("measure machine", 0, probes)
    memory.append(_read_with_numpy(threads, seconds))
    progress("measure machine", 1, probes)
    nbytes = _MATRIX * _MATRIX * _ITEMSIZE[dtype]
    memory.append(_probe(_method(1, _MATRIX), _product(dtype, 1, _MATRIX), nbytes, seconds))
    progress("measure machine", 2, probes)
    for number, (rows, side) in enumerate(_PRODUCTS):
        work = _product(dtype, rows, side)
        arithmetic.append(_probe(_method(rows, side), work, 2 * rows * side * side, seconds))
        progress("measure machine", number + 3, probes)
    return Limits(tuple(memory), tuple(arithmetic)).to_document()


def _read_with_numpy(threads: int, seconds: float) -> Probe:
    """The maximum of a large array, a part a thread: no arithmetic to speak of, and NumPy lets threads run freely."""
    nbytes = min(_BUFFER_NBYTES, psutil.virtual_memory().available // 4)
    buffer = np.ones(nbytes // 4, np.float32)
    parts = np.array_split(buffer, threads)
    with ThreadPoolExecutor(threads) as pool:
        read = lambda: list(pool.map(np.max, parts))  # noqa: E731
        return _probe(f"NumPy, maximum of {nbytes / 1e6:.0f} MB, {threads} threads", read, buffer.nbytes, seconds)


def _product(dtype: str, rows: int, side: int) -> Callable[[], object]:
    """``[rows, side] x [side, side]`` in graph mode, the weight on the device; it has ended when the call returns."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)
    of_dtype = getattr(ms, dtype)
    layer = ms.nn.Dense(side, side, weight_init="ones", has_bias=False, dtype=of_dtype)
    x = ms.Tensor(np.random.default_rng(0).random((rows, side), np.float32), of_dtype)
    return lambda: layer(x).asnumpy()


def _method(rows: int, side: int) -> str:
    return f"MindSpore, {rows} x {side} times {side} x {side}"


def _probe(method: str, work: Callable[[], object], amount: float, seconds: float) -> Probe:
    work()
    times = _times(work, seconds)
    return Probe(method, amount / min(times), amount / float(np.median(times)), len(times))


def _times(work: Callable[[], object], seconds: float) -> Sequence[float]:
    times: list[float] = []
    while len(times) < _ROUNDS or sum(times) < seconds:
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return times
