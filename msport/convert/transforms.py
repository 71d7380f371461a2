"""How plain output tensors are made from source tensors, one slab at a time.

Each transform divides its output into equal *rows*. It makes any range of rows that its grid allows, and reads only the
bytes that it needs. It states beforehand how much of the arena it uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import FLOATING, Array
from msport.convert.arena import Arena, aligned
from msport.convert.layers import Layer, cast_exactly
from msport.convert.tensors import OutputTensor, SourceTensor
from msport.convert.transform import Grid, Reader
from msport.encodings import Encoding, Plain
from msport.errors import quote

# The smallest useful slabs: of a copy, and of a stack, whose slabs each read all of their sources.
_LEAST_ELEMENTS = 1 << 16
_LEAST_ROWS = 256


@dataclass(frozen=True, slots=True)
class Copy:
    """The source unchanged or cast; a row is one element."""

    label: str = "copy"

    def decoded(self, tensor: OutputTensor) -> tuple[Encoding, ...]:
        (source,) = tensor.sources
        return (Plain(source.dtype),) if source.dtype in FLOATING else ()

    def grid(self, tensor: OutputTensor) -> Grid:
        elements = math.prod(tensor.shape)
        return Grid(elements, tensor.dtype.itemsize, elements, max(min(elements, _LEAST_ELEMENTS), 1))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        (source,) = tensor.sources
        read = aligned(rows * source.dtype.itemsize)
        return read if source.dtype == tensor.dtype else read + aligned(rows * tensor.dtype.itemsize)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> tuple[Array, ...]:
        (source,) = tensor.sources
        values = arena.array((end - begin,), source.dtype.storage)
        reader.read_into(source.name, begin * source.dtype.itemsize, values)
        return (cast_exactly(values, source.dtype, tensor.dtype, arena),)


@dataclass(frozen=True, slots=True)
class DecodeStack:
    """An encoded stack of experts ``[E, out, in]`` decoded to ``[E, in, out]``; a row is ``[out]``.

    Each part is cut along the inputs, its second axis in an expert, so that one slab needs no other slab's values.
    """

    encoding: Encoding

    @property
    def label(self) -> str:
        return f"{self.encoding.name}_transposed"

    def decoded(self, tensor: OutputTensor) -> tuple[Encoding, ...]:
        return (self.encoding,)

    def grid(self, tensor: OutputTensor) -> Grid:
        experts, inputs, outputs = tensor.shape
        step = max(inputs // source.shape[2] for source in tensor.sources)
        return Grid(experts * inputs, outputs * tensor.dtype.itemsize, inputs, step)

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        packed = sum(aligned(source.nbytes // tensor.shape[0]) for source in tensor.sources)
        return packed + aligned(rows * tensor.shape[2] * tensor.dtype.itemsize)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> tuple[Array, ...]:
        expert, row = divmod(begin, tensor.shape[1])
        parts = []
        for source in tensor.sources:
            values = arena.array(source.shape[1:], source.dtype.storage)
            reader.read_into(source.name, expert * values.nbytes, values)
            width = tensor.shape[1] // source.shape[2]
            parts.append(values[:, row // width : (row + end - begin) // width])
        out = arena.array((end - begin, tensor.shape[2]), tensor.dtype.storage)
        where = f"{tensor.sources[0].file}: tensor {quote(tensor.sources[0].name)}"
        self.encoding.decode(parts, tensor.dtype, out=out.T, where=where)
        return (out,)


@dataclass(frozen=True, slots=True)
class DecodeMatrix:
    """An encoded matrix to ``[out, in]``; a row is ``[in]``."""

    encoding: Encoding

    @property
    def label(self) -> str:
        return f"{self.encoding.name}_decoded"

    def decoded(self, tensor: OutputTensor) -> tuple[Encoding, ...]:
        return (self.encoding,)

    def grid(self, tensor: OutputTensor) -> Grid:
        outputs, inputs = tensor.shape
        return Grid(outputs, inputs * tensor.dtype.itemsize, outputs, min(outputs, _LEAST_ROWS))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        out = aligned(rows * tensor.shape[1] * tensor.dtype.itemsize)
        return out + self._layer(tensor).tiles_nbytes(tensor.dtype)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> tuple[Array, ...]:
        out = arena.array((end - begin, tensor.shape[1]), tensor.dtype.storage)
        for first, last, tile in self._layer(tensor).tiles(begin, end, tensor.dtype, reader, arena):
            out[first - begin : last - begin] = tile
        return (out,)

    def _layer(self, tensor: OutputTensor) -> Layer:
        return Layer(self.encoding, tensor.sources, *tensor.shape)


@dataclass(frozen=True, slots=True)
class StackTransposed:
    """Layers ``[out, in]``, `per_expert` for each expert, to ``[E, in, per_expert * out]``; a row is ``[per_expert *
    out]``.

    `encodings` are those of the layers in order, or one for all.
    """

    per_expert: int
    encodings: tuple[Encoding, ...]

    @property
    def label(self) -> str:
        encoded = sorted({encoding.name for encoding in self.encodings if not isinstance(encoding, Plain)})
        return "_".join([*encoded, "stack", *["concat"] * (self.per_expert > 1), "transposed"])

    def decoded(self, tensor: OutputTensor) -> tuple[Encoding, ...]:
        return tuple(dict.fromkeys(self.encodings))

    def grid(self, tensor: OutputTensor) -> Grid:
        experts, inputs, outputs = tensor.shape
        return Grid(experts * inputs, outputs * tensor.dtype.itemsize, inputs, min(inputs, _LEAST_ROWS))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        outputs, inputs = tensor.shape[2] // self.per_expert, tensor.shape[1]
        layers = layers_of(self.encodings, tensor.sources, outputs, inputs, slice(len(self.encodings)))
        tile = max(layer.tiles_nbytes(tensor.dtype) for layer in layers)
        return aligned(rows * tensor.shape[2] * tensor.dtype.itemsize) + tile

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> tuple[Array, ...]:
        _, inputs, width = tensor.shape
        expert, row = divmod(begin, inputs)
        out = arena.array((end - begin, width), tensor.dtype.storage)
        column = 0
        wanted = slice(expert * self.per_expert, (expert + 1) * self.per_expert)
        for layer in layers_of(self.encodings, tensor.sources, width // self.per_expert, inputs, wanted):
            for first, last, tile in layer.tiles(0, layer.outputs, tensor.dtype, reader, arena):
                out[:, column + first : column + last] = tile[:, row : row + end - begin].T
            column += layer.outputs
        return (out,)


def layers_of(
    encodings: tuple[Encoding, ...],
    sources: tuple[SourceTensor, ...],
    outputs: int,
    inputs: int,
    wanted: slice = slice(None),
) -> Iterator[Layer]:
    """The `wanted` ones of the layers ``[outputs, inputs]`` that `sources`, part after part, hold in `encodings`: one
    for each layer, or one for all.
    """
    sizes = [len(encoding.parts("", (outputs, inputs))) for encoding in encodings]
    shared = len(encodings) == 1
    starts = range(0, len(sources), sizes[0]) if shared else [0, *accumulate(sizes)][:-1]
    for number in range(len(starts))[wanted]:
        kind = 0 if shared else number
        yield Layer(encodings[kind], sources[starts[number] : starts[number] + sizes[kind]], outputs, inputs)


def as_it_is(tensor: TensorInfo, file: str) -> OutputTensor:
    """A plain copy of a tensor in `file`, for a run that only reads it."""
    source = SourceTensor(tensor.name, tensor.dtype, tensor.shape, file)
    return OutputTensor(tensor.name, tensor.dtype, tensor.shape, Copy(), (source,), 0, file, tensor.extents)
