"""Reads rows of a matrix from its parts, in any encoding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, Array, DType, cast
from msport.convert.arena import Arena, aligned
from msport.convert.tensors import SourceTensor
from msport.convert.transform import Reader
from msport.encodings import Encoding, Plain
from msport.errors import quote

# Elements cast, and bytes of a tile: small enough for the CPU cache.
_CAST_ELEMENTS = 1 << 16
_TILE_NBYTES = 1 << 18
_LEAST_ROWS = 32


@dataclass(frozen=True, slots=True)
class Layer:
    """A matrix ``[outputs, inputs]`` in `encoding`, whose parts are `sources`; if these are stacks, that of
    `expert`.
    """

    encoding: Encoding
    sources: tuple[SourceTensor, ...]
    outputs: int
    inputs: int
    expert: int | None = None

    @property
    def dtype(self) -> DType:
        """The dtype of its values before any cast."""
        return self.encoding.dtype if isinstance(self.encoding, Plain) else FLOAT32

    @property
    def where(self) -> str:
        """The name of the layer in errors."""
        return f"{self.sources[0].file}: tensor {quote(self.sources[0].name)}"

    @property
    def tile_rows(self) -> int:
        """Rows that fit into the CPU cache, or as many as are worth a call."""
        return max(_TILE_NBYTES // (self.inputs * FLOAT32.itemsize), _LEAST_ROWS)

    def tiles(
        self, begin: int, end: int, dtype: DType, reader: Reader, arena: Arena, rows: int | None = None
    ) -> Iterator[tuple[int, int, Array]]:
        """Rows ``[begin, end)`` in `dtype`, tile by tile of `rows` (default `tile_rows`), each with its first and last
        row. A tile is valid until the next one.
        """
        rows = rows or self.tile_rows
        mark = arena.mark()
        whole = self.load(begin, end, reader, arena) if self._is_read_whole else None
        kept = arena.mark()
        for first in range(begin, end, rows):
            last = min(first + rows, end)
            loaded = whole or self.load(first, last, reader, arena)
            yield first, last, loaded.rows(first, last, dtype, arena)
            arena.reset(kept)
        arena.reset(mark)

    def tiles_nbytes(self, dtype: DType, rows: int | None = None) -> int:
        """Bytes of arena for `tiles` of `rows`."""
        rows = min(rows or self.tile_rows, self.outputs)
        return self.loaded_nbytes(self.outputs if self._is_read_whole else rows) + self.rows_nbytes(rows, dtype)

    def load(self, begin: int, end: int, reader: Reader, arena: Arena) -> Loaded:
        """The bytes of the parts that hold rows ``[begin, end)``, in memory of `arena`."""
        parts, first = [], begin
        for number, source in enumerate(self.sources):
            low, high = self._rows(number, begin, end)
            shape = source.shape if self.expert is None else source.shape[1:]
            part = arena.array((high - low, *shape[1:]), source.dtype.storage)
            row_nbytes = math.prod(shape[1:]) * source.dtype.itemsize
            reader.read_into(source.name, ((self.expert or 0) * shape[0] + low) * row_nbytes, part)
            parts.append(part)
        if self._is_transposed:
            first = 0
        return Loaded(self, tuple(parts), first)

    def loaded_nbytes(self, rows: int) -> int:
        """Bytes of arena for the parts of `rows` rows, wherever they begin."""
        total = 0
        for number, source in enumerate(self.sources):
            shape = source.shape if self.expert is None else source.shape[1:]
            low, high = self._rows(number, 0, rows)
            # A range of rows may begin and end within a block of rows.
            count = min(high - low + (1 if high - low < rows else 0), shape[0])
            total += aligned(count * math.prod(shape[1:]) * source.dtype.itemsize)
        return total

    def rows_nbytes(self, rows: int, dtype: DType) -> int:
        """Bytes of arena for `rows` decoded and cast rows."""
        if isinstance(self.encoding, Plain):
            changed = self.encoding.dtype != dtype or self._is_transposed
            return aligned(rows * self.inputs * dtype.itemsize) * (2 if self._is_transposed else 1) * changed
        decoded = aligned(rows * self.inputs * FLOAT32.itemsize)
        return decoded + (0 if dtype == FLOAT32 else aligned(rows * self.inputs * dtype.itemsize))

    @property
    def _is_read_whole(self) -> bool:
        """Whether its rows lie scattered over a part."""
        return self._is_transposed or any(
            self.encoding.rows(number, 0, 1) is None for number in range(len(self.sources))
        )

    @property
    def _is_transposed(self) -> bool:
        """Whether the inputs come first, as in a plain stack of experts."""
        return self.expert is not None and isinstance(self.encoding, Plain)

    def _rows(self, part: int, begin: int, end: int) -> tuple[int, int]:
        """The rows of part number `part` that hold the outputs ``[begin, end)``."""
        rows = None if self._is_transposed else self.encoding.rows(part, begin, end)
        if rows is not None:
            return rows
        source = self.sources[part]
        return 0, source.shape[0 if self.expert is None else 1]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The parts of a layer in memory, from the output `first` on."""

    layer: Layer
    parts: tuple[Array, ...]
    first: int

    def rows(self, begin: int, end: int, dtype: DType, arena: Arena) -> Array:
        """Rows ``[begin, end)`` in `dtype`, in memory of `arena`. Raises OverflowError as `cast_exactly`."""
        layer = self.layer
        if isinstance(layer.encoding, Plain):
            return self._plain_rows(begin, end, layer.encoding.dtype, dtype, arena)
        values = arena.array((end - begin, layer.inputs), FLOAT32.storage)
        layer.encoding.decode(self._cut(begin, end), FLOAT32, out=values, first_row=begin, where=layer.where)
        return cast_exactly(values, FLOAT32, dtype, arena)

    def _plain_rows(self, begin: int, end: int, source: DType, dtype: DType, arena: Arena) -> Array:
        (values,) = self.parts
        if not self.layer._is_transposed:
            return cast_exactly(values[begin - self.first : end - self.first], source, dtype, arena)
        rows = arena.array((end - begin, self.layer.inputs), source.storage)
        np.copyto(rows, values[:, begin:end].T)
        return cast_exactly(rows, source, dtype, arena)

    def _cut(self, begin: int, end: int) -> Sequence[Array]:
        """The rows of each part that hold the outputs ``[begin, end)``."""
        cut = []
        for number, part in enumerate(self.parts):
            there, rows = self.layer._rows(number, self.first, end), self.layer._rows(number, begin, end)
            cut.append(part[rows[0] - there[0] : rows[1] - there[0]])
        return cut


def cast_exactly(values: Array, source: DType, target: DType, arena: Arena) -> Array:
    """`values` in `target`, in memory of `arena` if they change.

    Raises OverflowError if a finite value becomes infinite; in float32 none does.
    """
    if source == target:
        return values
    result = arena.array(values.shape, target.storage)
    flat, out = values.reshape(-1), result.reshape(-1)
    if target == FLOAT32:
        cast(flat, source, target, out=out)
        return result
    for begin in range(0, len(flat), _CAST_ELEMENTS):
        chunk = flat[begin : begin + _CAST_ELEMENTS]
        infinite = _is_infinite(cast(chunk, source, target, out=out[begin : begin + _CAST_ELEMENTS]), target)
        if infinite.any() and not _is_infinite(chunk[infinite], source).all():
            raise OverflowError(f"{target.name} cannot hold a finite {source.name}")
    return result


def _is_infinite(values: Array, dtype: DType) -> Array:
    infinite: Array = (values & 0x7FFF) == 0x7F80 if dtype == BFLOAT16 else np.isinf(values)
    return infinite
