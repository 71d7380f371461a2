"""Measures how fast this machine reads memory and multiplies: the limits with which figures are compared.

Several probes measure each limit, in a separate process, with the same cores as the models. The fastest round of the
fastest probe is the limit. Nothing is taken from a data sheet. On an NPU the matrices are larger than its caches, and
one graph holds many products, so that starting them and fetching the result do not count (this project never ran it on
an NPU).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from msport.checkpoint.dtypes import by_name
from msport.progress import Progress, Step
from msport.sizing.free import available_memory

_BUFFER_NBYTES = 1 << 29  # larger than the share of the last-level cache that one process can get
_ROUNDS = 5
_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Product:
    """``[rows, side] x [side, side]``, `depth` times in sequence, each time with another weight."""

    rows: int
    side: int
    depth: int = 1

    @property
    def method(self) -> str:
        """The name of the probe."""
        several = f", {self.depth} in a row" if self.depth > 1 else ""
        return f"MindSpore, {self.rows} x {self.side} times {self.side} x {self.side}{several}"

    @property
    def elements(self) -> int:
        """Number of elements of all weights."""
        return self.depth * self.side * self.side

    @property
    def flops(self) -> int:
        """Floating-point operations of all products."""
        return 2 * self.rows * self.elements


# One row is bound by memory; a prefill chunk, and as many rows as columns, are bound by arithmetic.
_READING = {"CPU": Product(1, 8192), "NPU": Product(1, 8192, 16)}
_MULTIPLYING = {
    "CPU": (Product(128, 4096), Product(2048, 2048)),
    "NPU": (Product(128, 4096, 16), Product(8192, 8192, 2)),
}


@dataclass(frozen=True, slots=True)
class Probe:
    """One way of measuring a limit: bytes or floating-point operations per second, best and median of `rounds`."""

    method: str
    best: float
    median: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the machine: `memory` in bytes read per second, `arithmetic` in operations per second."""

    memory: tuple[Probe, ...]
    arithmetic: tuple[Probe, ...]

    @property
    def bandwidth(self) -> Probe:
        """The fastest probe of the memory."""
        return max(self.memory, key=lambda probe: probe.best)

    @property
    def matmul(self) -> Probe:
        """The fastest probe of matrix products."""
        return max(self.arithmetic, key=lambda probe: probe.best)

    def __add__(self, other: Limits) -> Limits:
        """Combines the limits of two measurements of one machine."""
        return Limits(self.memory + other.memory, self.arithmetic + other.arithmetic)


def measure(dtype: str, threads: int, seconds: float = _SECONDS, *, progress: Progress) -> dict[str, Any]:
    """The fields of `Limits` for a model in `dtype`; runs in a child process. `seconds` is the time per probe."""
    import mindspore as ms

    on_cpu = ms.get_context("device_target") == "CPU"
    machine, finish = ("CPU", _fetch) if on_cpu else ("NPU", lambda _: ms.runtime.synchronize())
    reading, multiplying = _READING[machine], _MULTIPLYING[machine]

    def run(product: Product, amount: int) -> Probe:
        return _probe(product.method, multiply(product, dtype, finish), amount, seconds)

    probes: list[Callable[[], Probe]] = [partial(run, reading, reading.elements * by_name(dtype).itemsize)]
    if on_cpu:
        probes.insert(0, partial(_read_with_numpy, threads, seconds))
    probes += [partial(run, product, product.flops) for product in multiplying]
    measured = []
    for number, probe in enumerate(probes):
        progress(Step("measure machine", number, len(probes)))
        measured.append(probe())
    progress(Step("measure machine", len(probes), len(probes)))
    split = len(measured) - len(multiplying)
    return asdict(Limits(tuple(measured[:split]), tuple(measured[split:])))


def _read_with_numpy(threads: int, seconds: float) -> Probe:
    """Takes the maximum of a large array, one part per thread: this needs little arithmetic, and NumPy releases the
    GIL.
    """
    nbytes = min(_BUFFER_NBYTES, available_memory() // 4)
    buffer = np.ones(nbytes // 4, np.float32)
    parts = np.array_split(buffer, threads)
    with ThreadPoolExecutor(threads) as pool:
        read = lambda: list(pool.map(np.max, parts))  # noqa: E731
        return _probe(f"NumPy, maximum of {nbytes / 1e6:.0f} MB, {threads} threads", read, buffer.nbytes, seconds)


def multiply(product: Product, dtype: str, finish: Callable[[Any], object]) -> Callable[[], object]:
    """A function that computes `product` in graph mode with weights on the device; it ends when `finish` returns."""
    import mindspore as ms

    ms.set_context(mode=ms.GRAPH_MODE)
    of_dtype, side = getattr(ms, dtype), product.side
    mean = ms.common.initializer.Constant(1.0 / side)  # the output has the shape of the input
    layers = [ms.nn.Dense(side, side, weight_init=mean, has_bias=False, dtype=of_dtype) for _ in range(product.depth)]
    chain = layers[0] if len(layers) == 1 else ms.nn.SequentialCell(layers)
    x = ms.Tensor(np.random.default_rng(0).random((product.rows, side), np.float32), of_dtype)
    return lambda: finish(chain(x))


def _fetch(result: Any) -> object:
    """Waits for a result on the CPU, by reading it."""
    return result.asnumpy()


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
