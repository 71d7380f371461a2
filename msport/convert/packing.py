"""How packed output tensors are made: by quantising plain weights, or by regrouping packed ones without a loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.convert.arena import Arena, aligned
from msport.convert.layers import Layer
from msport.convert.tensors import OutputTensor, SourceTensor
from msport.convert.transform import Grid, Reader
from msport.convert.transforms import layers_of
from msport.encodings import Encoding, Grouped, Part, Regroupable, Shape
from msport.encodings.quantise import quantise
from msport.errors import UsageError, parameter

# Rows of a slab that are worth a call, and bytes that are worth a read.
_LEAST_ROWS = 16
_TILE_NBYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class _Packing:
    """A weight of `shape` ``[..., outputs, inputs]`` in matrices of `encodings` (one for each, or one for all),
    `per_expert` of them for each expert or (None) whole, to the parts of `target`.
    """

    target: Grouped
    shape: Shape
    encodings: tuple[Encoding, ...]
    per_expert: int | None = None

    @property
    def label(self) -> str:
        return f"{self.target.name}_packed"

    def decoded(self, tensor: OutputTensor) -> tuple[Encoding, ...]:
        return ()

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.target.parts("", self.shape)

    @property
    def experts(self) -> int:
        return self.shape[0] if len(self.shape) == 3 else 1

    def layers(self, sources: tuple[SourceTensor, ...], expert: int) -> Iterator[tuple[int, Layer]]:
        """The layers of `expert`, each with its first output."""
        outputs, inputs = self.shape[-2:]
        if self.per_expert is None:
            (encoding,) = self.encodings
            yield 0, Layer(encoding, sources, outputs, inputs, expert if len(self.shape) == 3 else None)
            return
        wanted = slice(expert * self.per_expert, (expert + 1) * self.per_expert)
        for number, layer in enumerate(layers_of(self.encodings, sources, outputs // self.per_expert, inputs, wanted)):
            yield number * layer.outputs, layer


@dataclass(frozen=True, slots=True)
class Quantise(_Packing):
    """A plain or FP8 weight to codes, scales and offsets; a row is an output of an expert."""

    @property
    def label(self) -> str:
        return f"{self.target.name}_quantised"

    def grid(self, tensor: OutputTensor) -> Grid:
        outputs = self.shape[-2]
        rows = self.experts * outputs
        return Grid(rows, tensor.nbytes // rows, outputs, min(outputs, _LEAST_ROWS))

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        results = sum(aligned(rows * part.nbytes // (self.experts * self.shape[-2])) for part in self.parts)
        layers = [layer for _, layer in self.layers(tensor.sources, 0)]
        return results + max(layer.tiles_nbytes(layer.dtype, _tile_rows(layer)) for layer in layers)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> tuple[Array, ...]:
        expert, low = divmod(begin, self.shape[-2])
        high = low + end - begin
        out = tuple(arena.array((end - begin, part.shape[-1]), part.dtype.storage) for part in self.parts)
        for start, layer in self.layers(tensor.sources, expert):
            first, last = max(low - start, 0), min(high - start, layer.outputs)
            for above, below, tile in layer.tiles(first, last, layer.dtype, reader, arena, _tile_rows(layer)):
                rows = slice(start + above - low, start + below - low)
                quantise(tile, layer.dtype, self.target, [part[rows] for part in out], where=layer.where)
        return out


def _tile_rows(layer: Layer) -> int:
    return max(_TILE_NBYTES // (layer.inputs * layer.dtype.itemsize), _LEAST_ROWS)


@dataclass(frozen=True, slots=True)
class Regroup(_Packing):
    """A packed weight of another layout to codes, scales, offsets and order, bit for bit; a row is all of an expert."""

    def grid(self, tensor: OutputTensor) -> Grid:
        return Grid(self.experts, tensor.nbytes // self.experts, 1)

    def scratch(self, tensor: OutputTensor, rows: int) -> int:
        """The regrouped parts of a layer lie outside of the arena; they are counted in it."""
        results = sum(aligned(part.nbytes // self.experts) for part in self.parts)
        layers = [layer for _, layer in self.layers(tensor.sources, 0)]
        return 2 * results + max(layer.loaded_nbytes(layer.outputs) for layer in layers)

    def produce(self, tensor: OutputTensor, begin: int, end: int, reader: Reader, arena: Arena) -> tuple[Array, ...]:
        stacked = len(self.shape) == 3
        shapes = [part.shape[1:] if stacked else part.shape for part in self.parts]
        kinds = [part.dtype.storage for part in self.parts]
        out = tuple(arena.array(shape, kind) for shape, kind in zip(shapes, kinds, strict=True))
        for start, layer in self.layers(tensor.sources, begin):
            mark = arena.mark()
            loaded = layer.load(0, layer.outputs, reader, arena)
            if not isinstance(layer.encoding, Regroupable):
                raise TypeError(f"{layer.encoding.name} cannot be regrouped")
            _, parts = layer.encoding.regroup(loaded.parts, layer.where, self.target)
            for target, made in zip(out, parts, strict=True):
                _place(target, made, start, layer)
            arena.reset(mark)
        return out


def _place(target: Array, made: Array, start: int, layer: Layer) -> None:
    """Puts a part of `layer`, whose outputs begin at `start`, into the part of its expert."""
    if made.ndim > 1:
        target[start : start + len(made)] = made
    elif start == 0 or np.array_equal(target, made):  # one order of inputs for all outputs
        target[:] = made
    else:
        raise UsageError(
            f"{layer.where}: its act-order is not that of the layer it is stacked with; convert with"
            f" {parameter('dtype')} bfloat16"
        )
