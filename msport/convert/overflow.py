"""Finds all tensors that a narrow dtype cannot hold, after the first was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, Array
from msport.convert.tensors import OutputTensor
from msport.convert.transform import Reader
from msport.convert.workers import Sink, Workers
from msport.errors import UsageError, enumerate_some, parameter, quote

# The smallest magnitudes that round to infinity: halfway from the largest finite value to the next one.
_LIMITS = {FLOAT16: 65520.0, BFLOAT16: float(np.uint32(0x7F7F8000).view(np.float32))}

_CHUNK = 1 << 16


def overflowing(tensors: Sequence[OutputTensor], reader: Reader, workers: Workers) -> list[tuple[OutputTensor, float]]:
    """The `tensors` that their dtype cannot hold, with their largest finite magnitudes, in descending order.

    Reads every source that would be rounded, and writes nothing.
    """
    exact = [replace(tensor, dtype=FLOAT32) for tensor in tensors if tensor.rounded]
    largest = _Largest()
    workers.run("find what overflows", exact, reader, largest)
    found = [(tensor, largest.magnitudes.get(tensor.name, 0.0)) for tensor in tensors]
    affected = [(tensor, value) for tensor, value in found if value >= _LIMITS.get(tensor.dtype, np.inf)]
    return sorted(affected, key=lambda pair: -pair[1])


def overflow_error(affected: Sequence[tuple[OutputTensor, float]]) -> UsageError:
    """The error that names `affected`, as `overflowing` returns it."""
    tensor, value = affected[0]
    remedy = f"convert with {parameter('dtype')} float32" + ("" if tensor.dtype == BFLOAT16 else " or bfloat16")
    if len(affected) == 1:
        return UsageError(
            f"{tensor.sources[0].file}: {tensor.dtype.name} cannot hold tensor {quote(tensor.name)}, whose largest"
            f" magnitude is {value:.6g}; {remedy}"
        )
    names = enumerate_some([f"{quote(tensor.name)} ({value:.6g})" for tensor, value in affected])
    return UsageError(
        f"{tensor.dtype.name} cannot hold {len(affected)} tensors, whose largest magnitude is {value:.6g}:"
        f" {names}; {remedy}"
    )


class _Largest(Sink):
    """Keeps the largest finite magnitude of each float32 tensor."""

    def __init__(self) -> None:
        self.magnitudes: dict[str, float] = {}

    def write(self, tensor: OutputTensor, offset: int, slab: Array) -> None:
        values = slab.reshape(-1)
        largest = self.magnitudes.get(tensor.name, 0.0)
        for begin in range(0, len(values), _CHUNK):
            chunk = np.abs(values[begin : begin + _CHUNK])
            largest = max(largest, float(chunk[np.isfinite(chunk)].max(initial=0)))
        self.magnitudes[tensor.name] = largest
