"""How output tensors are made from source tensors, one slab at a time.

Each transform divides its output into equal *rows*. It makes any range of rows that its grid allows, and reads only the
bytes that it needs. It states beforehand how much of the arena it uses. The architecture's table says which transform a
tensor uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint import DType, fp8, mxfp4
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, cast
from msport.convert.arena import Arena, aligned
from msport.convert.tensors import OutputTensor, SourceTensor
from msport.errors import quote

Array = NDArray[Any]

# A linear layer: its weight, and in FP8 also its scales.
Layer = tuple[SourceTensor, ...]

# The smallest useful slabs: of a copy, and of a stack, whose slabs each read all of their sources.
_LEAST_ELEMENTS = 1 << 16
_LEAST_ROWS = 256

# Elements cast, and bytes transposed, at a time: small enough for the CPU cache.
_CAST_ELEMENTS = 1 << 16
_TILE_BYTES = 1 << 18


class Reader(Protocol):
    """The source of bytes: files on disk, or anything else that can read a range of a tensor."""

    def read_into(self, name: str, offset: int, buffer: Array) -> None:
        """Fill `buffer` with the bytes of tensor `name` from its byte `offset` on. Called from several threads."""

    def abandon(self) -> None:
        """End running reads in other threads, if they can take long."""


@dataclass(frozen=True, slots=True)
class Grid:
    """An output of `rows` rows of `row_nbytes` bytes.

    Slabs stay within an expert and begin at multiples of `step` rows in it. An output that is not made expert by expert
    counts as one expert.
    """

    rows: int
    row_nbytes: int
    rows_per_expert: int
    step: int = 1

    def slabs(self, rows: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """Ranges of at most `rows` rows, a multiple of `step`, that cover the output in order from row `first` on."""
        for start in range(0, self.rows, self.rows_per_expert or 1):
            for begin in range(max(start, first), start + self.rows_per_expert, rows):
                yield begin, min(begin + rows, start + self.rows_per_expert)

    def whole_rows(self, nbytes: int) -> int:
        """How many of the complete rows in the first `nbytes` bytes to keep: the rest must begin at a row that the grid
        allows.
        """
        rows = nbytes // self.row_nbytes
        return rows - rows % self.rows_per_expert % self.step


class Transform(Protocol):
    """A way to make an output tensor from its sources."""

    def grid(self, tensor: OutputTensor) -> Grid:
        """The rows of `tensor` and which ranges of them can be made."""

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        """Bytes of arena for a slab of `rows` rows, its result included."""

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> Array:
        """Rows ``[begin, end)`` of `tensor` in storage form, C-contiguous, in memory of `arena`.

        Raises OverflowError if a finite value becomes infinite.
        """


class Copy:
    """The source unchanged or cast; a row is one element."""

    def grid(self, tensor: OutputTensor) -> Grid:
        elements = math.prod(tensor.shape)
        return Grid(elements, tensor.dtype.itemsize, elements, max(min(elements, _LEAST_ELEMENTS), 1))

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
        where = f"{tensor.sources[0].file}: tensor {quote(tensor.sources[0].name)}"
        mxfp4.decode_transposed(blocks, scales, tensor.dtype, out=out, where=where)
        return out


class Fp8Blocks:
    """An FP8 layer ``[out, in]`` and its scales to ``[out, in]``; a row is ``[in]``."""

    def grid(self, tensor: OutputTensor) -> Grid:
        outputs, inputs = tensor.shape
        return Grid(outputs, inputs * tensor.dtype.itemsize, outputs, min(outputs, _LEAST_ROWS))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        return aligned(rows * tensor.shape[1] * tensor.dtype.itemsize) + _scratch_of_tile(tensor, tensor.sources)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> Array:
        out = arena.array((end - begin, tensor.shape[1]), tensor.dtype.storage)
        mark = arena.mark()
        step = _tile_rows(tensor.sources)
        for first in range(begin, end, step):
            last = min(first + step, end)
            out[first - begin : last - begin] = _read_rows(tensor, tensor.sources, first, last, reader, arena)
            arena.reset(mark)
        return out


@dataclass(frozen=True, slots=True)
class StackTransposed:
    """Linear layers ``[out, in]``, `group` per expert, to ``[E, in, group * out]``; a row is ``[group * out]``.

    With `scaled` each layer is in FP8 and followed by its scales.
    """

    group: int
    scaled: bool = False

    def grid(self, tensor: OutputTensor) -> Grid:
        experts, inputs, outputs = tensor.shape
        return Grid(experts * inputs, outputs * tensor.dtype.itemsize, inputs, min(inputs, _LEAST_ROWS))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        layer = next(self._layers(tensor, 0))
        return aligned(rows * tensor.shape[2] * tensor.dtype.itemsize) + _scratch_of_tile(tensor, layer)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> Array:
        expert, row = divmod(begin, tensor.shape[1])
        out = arena.array((end - begin, tensor.shape[2]), tensor.dtype.storage)
        mark = arena.mark()
        column = 0
        for layer in self._layers(tensor, expert):
            outputs, step = layer[0].shape[0], _tile_rows(layer)
            for first in range(0, outputs, step):
                last = min(first + step, outputs)
                tile = _read_rows(tensor, layer, first, last, reader, arena)
                out[:, column + first : column + last] = tile[:, row : row + end - begin].T
                arena.reset(mark)
            column += outputs
        return out

    def _layers(self, tensor: OutputTensor, expert: int) -> Iterator[Layer]:
        """The layers of `expert`."""
        parts = 2 if self.scaled else 1
        for first in range(expert * self.group * parts, (expert + 1) * self.group * parts, parts):
            yield tensor.sources[first : first + parts]


TRANSFORMS: dict[str, Transform] = {
    "copy": Copy(),
    "mxfp4_transposed": Mxfp4Transposed(),
    "fp8_blocks": Fp8Blocks(),
    "stack_transposed": StackTransposed(1),
    "stack_concat_transposed": StackTransposed(2),
    "fp8_stack_transposed": StackTransposed(1, scaled=True),
    "fp8_stack_concat_transposed": StackTransposed(2, scaled=True),
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
    """Fill `result`. Raises OverflowError if a finite value becomes infinite; in float32 none does."""
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


def _tile_rows(layer: Layer) -> int:
    return max(_TILE_BYTES // (layer[0].shape[1] * layer[0].dtype.itemsize), 1)


def _read_rows(tensor: OutputTensor, layer: Layer, first: int, last: int, reader: Reader, arena: Arena) -> Array:
    """Rows ``[first, last)`` of `layer` ``[out, in]``, in the dtype of `tensor`."""
    inputs = layer[0].shape[1]
    if len(layer) == 1:
        return _read(tensor, layer[0], (last - first, inputs), first * inputs, reader, arena)
    weight, scale = layer
    codes = arena.array((last - first, inputs), weight.dtype.storage)
    reader.read_into(weight.name, first * inputs, codes)
    above, columns = first // fp8.BLOCK, scale.shape[1]
    scales = arena.array((-(-last // fp8.BLOCK) - above, columns), scale.dtype.storage)
    reader.read_into(scale.name, above * columns * scale.dtype.itemsize, scales)
    values = arena.array(codes.shape, FLOAT32.storage)
    fp8.decode(codes, cast(scales, scale.dtype, FLOAT32), first, values)
    if tensor.dtype == FLOAT32:
        return values
    result = arena.array(codes.shape, tensor.dtype.storage)
    _cast(values.reshape(-1), FLOAT32, result.reshape(-1), tensor.dtype)
    return result


def _scratch_of_tile(tensor: OutputTensor, layer: Layer) -> int:
    rows, inputs = _tile_rows(layer), layer[0].shape[1]
    if len(layer) == 1:
        return _scratch_of_read(tensor, layer[0], rows * inputs)
    blocks = rows // fp8.BLOCK + 2  # a tile may begin and end within a block
    scales = aligned(blocks * layer[1].shape[1] * layer[1].dtype.itemsize)
    results = aligned(rows * inputs * FLOAT32.itemsize) + aligned(rows * inputs * tensor.dtype.itemsize)
    return aligned(rows * inputs) + scales + results
