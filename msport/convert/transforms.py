"""How output tensors are made from source tensors, a slab at a time.

Each transform sees its output as equal *rows* and makes any run of them that its grid allows, reading only the bytes
it needs into an arena whose use it states beforehand. Which transform a tensor takes is written in its architecture's
table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint import DType, mxfp4
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, cast
from msport.convert.arena import Arena, aligned
from msport.convert.plan import OutputTensor, SourceTensor

Array = NDArray[Any]

# The smallest slabs worth an own read: of a copy, and of a stack, each of which reads its sources whole.
_LEAST_ELEMENTS = 1 << 16
_LEAST_ROWS = 256

# What is cast, and what is transposed, at a time: small enough to stay in the cache.
_CAST_ELEMENTS = 1 << 16
_TILE_BYTES = 1 << 18


class Reader(Protocol):
    """Where source bytes come from: files on disk, or whatever else can give a range of a tensor."""

    def read_into(self, name: str, offset: int, buffer: Array) -> None:
        """Fill `buffer` with the bytes of tensor `name` from byte `offset` of it on; called from several threads."""


@dataclass(frozen=True, slots=True)
class Grid:
    """An output of `rows` rows of `row_nbytes` bytes; slabs lie within a `period` and begin at multiples of `step`."""

    rows: int
    row_nbytes: int
    period: int
    step: int = 1

    def slabs(self, rows: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Ranges of at most `rows` rows, a multiple of `step`, that cover the output in order from row `first` on."""
        for start in range(0, self.rows, self.period or 1):
            for begin in range(max(start, first), start + self.period, rows):
                yield begin, min(begin + rows, start + self.period)

    def whole_rows(self, nbytes: int) -> int:
        """How many of the first rows lie within the first `nbytes` bytes and leave a rest that can be made."""
        rows = nbytes // self.row_nbytes
        return rows - rows % self.period % self.step


class Transform(Protocol):
    """A way to make an output tensor from its sources."""

    def grid(self, tensor: OutputTensor) -> Grid:
        """The rows of `tensor` and which runs of them can be made."""

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        """Bytes of arena that a slab of `rows` rows takes, its result included."""

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> Array:
        """Rows ``[begin, end)`` of `tensor` in storage form, C-contiguous, in memory of `arena`.

        Raises OverflowError if a finite value becomes infinite.
        """


class Copy:
    """The source as it is, or cast; a row is one element."""

    def grid(self, tensor: OutputTensor) -> Grid:
        elements = math.prod(tensor.shape)
        return Grid(elements, tensor.dtype.itemsize, elements, min(elements, _LEAST_ELEMENTS))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        return _scratch_of_read(tensor, tensor.sources[0], rows)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> Array:
        return _read(tensor, tensor.sources[0], (end - begin,), begin, reader, arena)


class Mxfp4Transposed:
    """Blocks ``[E, out, in/32, 16]`` and scales ``[E, out, in/32]`` decoded to ``[E, in, out]``; a row is ``[out]``."""

    def grid(self, tensor: OutputTensor) -> Grid:
        experts, inputs, outputs = tensor.shape
        return Grid(experts * inputs, outputs * tensor.dtype.itemsize, inputs, mxfp4.BLOCK_VALUES)

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        packed = sum(aligned(source.nbytes // tensor.shape[0]) for source in tensor.sources)
        return packed + aligned(rows * tensor.shape[2] * tensor.dtype.itemsize)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> Array:
        expert, row = divmod(begin, tensor.shape[1])
        groups = slice(row // mxfp4.BLOCK_VALUES, (row + end - begin) // mxfp4.BLOCK_VALUES)
        blocks, scales = (_read_expert(source, expert, reader, arena)[:, groups] for source in tensor.sources)
        out = arena.array((end - begin, tensor.shape[2]), tensor.dtype.storage)
        where = f"{tensor.sources[0].file}: tensor {tensor.sources[0].name!r}"
        mxfp4.decode_transposed(blocks, scales, tensor.dtype, out=out, where=where)
        return out


@dataclass(frozen=True, slots=True)
class StackTransposed:
    """Linear layers ``[out, in]``, `group` an expert, to ``[E, in, group * out]``; a row is ``[group * out]``."""

    group: int

    def grid(self, tensor: OutputTensor) -> Grid:
        experts, inputs, outputs = tensor.shape
        return Grid(experts * inputs, outputs * tensor.dtype.itemsize, inputs, min(inputs, _LEAST_ROWS))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        source = tensor.sources[0]
        return aligned(rows * tensor.shape[2] * tensor.dtype.itemsize) + _scratch_of_read(
            tensor, source, _tile_rows(source) * source.shape[1]
        )

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> Array:
        expert, row = divmod(begin, tensor.shape[1])
        out = arena.array((end - begin, tensor.shape[2]), tensor.dtype.storage)
        mark = arena.mark()
        column = 0
        for source in tensor.sources[expert * self.group : (expert + 1) * self.group]:
            outputs, inputs = source.shape
            for first in range(0, outputs, _tile_rows(source)):
                last = min(first + _tile_rows(source), outputs)
                tile = _read(tensor, source, (last - first, inputs), first * inputs, reader, arena)
                out[:, column + first : column + last] = tile[:, row : row + end - begin].T
                arena.reset(mark)
            column += outputs
        return out


TRANSFORMS: dict[str, Transform] = {
    "copy": Copy(),
    "mxfp4_transposed": Mxfp4Transposed(),
    "stack_transposed": StackTransposed(1),
    "stack_concat_transposed": StackTransposed(2),
}


def _read(
    tensor: OutputTensor, source: SourceTensor, shape: tuple[int, ...], begin: int, reader: Reader, arena: Arena
) -> Array:
    """Elements of `source` from `begin` on, as `shape`, in the dtype of `tensor`."""
    values = arena.array(shape, source.dtype.storage)
    reader.read_into(source.name, begin * source.dtype.itemsize, values)
    if source.dtype == tensor.dtype:
        return values
    result = arena.array(shape, tensor.dtype.storage)
    _cast(values.reshape(-1), source.dtype, result.reshape(-1), tensor.dtype)
    return result


def _cast(values: Array, source: DType, result: Array, target: DType) -> None:
    """Fill `result`; raises OverflowError if a finite value becomes infinite, which in float32 none does."""
    if target == FLOAT32:
        cast(values, source, target, out=result)
        return
    for begin in range(0, len(values), _CAST_ELEMENTS):
        chunk = values[begin : begin + _CAST_ELEMENTS]
        out = cast(chunk, source, target, out=result[begin : begin + _CAST_ELEMENTS])
        infinite = _is_infinite(out, target)
        if infinite.any() and not _is_infinite(chunk[infinite], source).all():
            raise OverflowError(f"{target.name} cannot hold a finite {source.name}")


def _is_infinite(values: Array, dtype: DType) -> Array:
    return (values & 0x7FFF) == 0x7F80 if dtype == BFLOAT16 else np.isinf(values)


def _scratch_of_read(tensor: OutputTensor, source: SourceTensor, elements: int) -> int:
    scratch = aligned(elements * source.dtype.itemsize)
    if source.dtype != tensor.dtype:
        scratch += aligned(elements * tensor.dtype.itemsize)
    return scratch


def _read_expert(source: SourceTensor, expert: int, reader: Reader, arena: Arena) -> Array:
    """Row `expert` of the first axis of `source`."""
    values = arena.array(source.shape[1:], source.dtype.storage)
    reader.read_into(source.name, expert * values.nbytes, values)
    return values


def _tile_rows(source: SourceTensor) -> int:
    return max(_TILE_BYTES // (source.shape[1] * source.dtype.itemsize), 1)
