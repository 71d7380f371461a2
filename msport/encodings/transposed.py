"""`Grouped` with the inputs first, as CANN's matrix products take it. No file holds it: loading makes it, once.

CANN recommends this form for groups. Its transposed form, which would take `Grouped` as it lies, wants the scales
transposed too, and MindSpore's operator transposes the codes only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from msport.checkpoint.dtypes import INT4_PAIRS, INT8, INT32, Array, DType
from msport.encodings.encoding import Part, Shape
from msport.encodings.grouped import Grouped

_WORD = np.dtype("V16")


@dataclass(frozen=True, slots=True)
class Transposed:
    """The parts of `grouped` under the same names: codes ``[..., inputs, outputs]``, of int4 two outputs in a byte, the
    even one in the low half; scales and offsets ``[..., groups, outputs]``, or ``[..., outputs]`` if all inputs share a
    scale; the order as it is.
    """

    grouped: Grouped

    @property
    def name(self) -> str:
        """That of `grouped`."""
        return self.grouped.name

    @property
    def exact_in(self) -> tuple[DType, ...]:
        """As `grouped`."""
        return self.grouped.exact_in

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        """The tensors of `weight` of `shape`, an even number of outputs for int4."""
        *stack, outputs, inputs = shape
        bits, group = self.grouped.bits, self.grouped.group
        codes, *others = self.grouped.parts(weight, shape)
        dtype = INT4_PAIRS if bits == 4 else INT8
        scales = (*stack, outputs) if group == inputs else (*stack, inputs // group, outputs)
        return (
            replace(codes, shape=(*stack, inputs, outputs * bits // 8), dtypes=(dtype,)),
            *(part if part.dtype == INT32 else replace(part, shape=scales) for part in others),
        )

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        """No part has the outputs as rows."""
        return None

    def transpose(self, parts: Sequence[Array]) -> list[Array]:
        """The parts, made from those of `grouped`. Scratch memory is half of the codes."""
        codes, *others = parts
        transposed = _transpose_pairs(codes) if self.grouped.bits == 4 else _swap(codes)
        return [transposed.view(np.int8), *(_scales(part) if part.dtype != np.int32 else part for part in others)]

    def decode(
        self,
        parts: Sequence[Array],
        dtype: DType,
        out: Array | None = None,
        *,
        first_row: int = 0,
        where: str = "weight",
    ) -> Array:
        """As `Encoding.decode`."""
        codes, *others = parts
        back = _transpose_pairs(codes.view(np.uint8)) if self.grouped.bits == 4 else _swap(codes)
        inputs = back.shape[-1] * 8 // self.grouped.bits
        groups = (*back.shape[:-1], inputs // self.grouped.group)
        restored = (part if part.dtype == np.int32 else _rows_of_groups(part, groups) for part in others)
        return self.grouped.decode([back, *restored], dtype, out, where=where)


def _scales(part: Array) -> Array:
    return part[..., 0] if part.shape[-1] == 1 else _swap(part)


def _rows_of_groups(part: Array, shape: Shape) -> Array:
    return part.reshape(shape) if shape[-1] == 1 else _swap(part)


def _transpose_pairs(codes: Array) -> Array:
    """Bytes ``[..., a, b / 2]`` that hold pairs along b, as bytes ``[..., b, a / 2]`` with pairs along a."""
    *stack, rows, pairs = codes.shape
    even, odd = codes[..., 0::2, :], codes[..., 1::2, :]
    out = np.empty((*stack, 2 * pairs, rows // 2), np.uint8)
    out[..., 0::2, :] = _swap((even & 15) | (odd << 4))
    out[..., 1::2, :] = _swap((even >> 4) | (odd & 240))
    return out


def _swap(array: Array) -> Array:
    """The last two axes exchanged, contiguous.

    Byte by byte, every write would miss the caches: 50 MB/s for 4096 x 4096. So words of 16 bytes are moved first, then
    the bytes of a row of words, which fit the cache: 320 MB/s.
    """
    *stack, rows, columns = array.shape
    size = _WORD.itemsize // array.itemsize
    if columns % size:
        return np.ascontiguousarray(array.swapaxes(-1, -2))
    words = np.ascontiguousarray(np.ascontiguousarray(array).view(_WORD).swapaxes(-1, -2))
    within = words.view(array.dtype).reshape(*stack, columns // size, rows, size)
    return np.ascontiguousarray(within.swapaxes(-1, -2)).reshape(*stack, columns, rows)
