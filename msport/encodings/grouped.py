"""int4 and int8 in groups: codes, and one scale for each group of inputs of an output.

A value is ``(code + offset) * scale``, as CANN's ``aclnnWeightQuantBatchMatmulV2`` computes it with
``antiquantOffsetOptional`` and ``antiquantScale``. The offset is the negated zero point, an integer, so that ``code +
offset`` is exact in every dtype in which a device may add them. Without offsets the codes are symmetric.

int4 has codes -8..7 in two's complement, two in a byte: that of the even input in the low half. int8 has -128..127.
With an order (act-order, ``desc_act`` of GPTQ) column ``i`` belongs to input ``order[i]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from msport.checkpoint.dtypes import (
    BFLOAT16,
    FLOAT16,
    FLOAT32,
    FLOATING,
    INT8,
    INT32,
    UINT8,
    Array,
    DType,
    cast,
)
from msport.checkpoint.layout import TensorInfo
from msport.encodings.encoding import Part, Shape
from msport.errors import CheckpointError, UnsupportedError, quote

# A group is a whole number of vectors of every kernel, or all inputs.
GROUP_STEP = 32
# Values decoded at a time: the temporaries (at most 20 bytes per value) stay in the L2 cache.
_TILE_VALUES = 1 << 15
_LARGEST = {FLOAT32: 3.4028235e38, BFLOAT16: 3.3895314e38, FLOAT16: 65504.0}


@dataclass(frozen=True, slots=True)
class Grouped:
    """Codes ``{weight}_codes``, of `bits` 4 uint8 ``[..., outputs, inputs / 2]``, of 8 int8 ``[..., outputs, inputs]``;
    ``{weight}_scales`` and, with `offsets`, ``{weight}_offsets``, ``[..., outputs, inputs / group]`` in `scale_dtype`;
    with `order`, ``{weight}_order``, int32 ``[..., inputs]``.

    `group` is a multiple of 32, or the number of inputs (one scale per output). The default takes 4.5 or 8.5 bits per
    weight, as llama.cpp's Q4_0 and Q8_0.
    """

    bits: int
    group: int = 32
    scale_dtype: DType = BFLOAT16
    offsets: bool = False
    order: bool = False

    @property
    def name(self) -> str:
        """``int4`` or ``int8``."""
        return f"int{self.bits}"

    @property
    def exact_in(self) -> tuple[DType, ...]:
        """float32, which holds a code times a shorter scale."""
        return () if self.scale_dtype == FLOAT32 else (FLOAT32,)

    @property
    def description(self) -> str:
        """The encoding in words, for people."""
        return f"{self.name} in groups of {self.group}, {'with zero points' if self.offsets else 'symmetric'}"

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        """The tensors of `weight` of `shape`. Raises UnsupportedError for a group that does not fit the inputs."""
        *stack, outputs, inputs = shape
        _refuse_group(weight, inputs, self)
        codes = (*stack, outputs, inputs * self.bits // 8)
        scales = (*stack, outputs, inputs // self.group)
        others = tuple(dtype for dtype in FLOATING if dtype != self.scale_dtype)
        found = [
            Part(f"{weight}_codes", codes, (self.code_dtype,)),
            Part(f"{weight}_scales", scales, (self.scale_dtype, *others)),
        ]
        if self.offsets:
            found.append(Part(f"{weight}_offsets", scales, (self.scale_dtype,)))
        if self.order:
            found.append(Part(f"{weight}_order", (*stack, inputs), (INT32,)))
        return tuple(found)

    @property
    def code_dtype(self) -> DType:
        """The dtype of the tensor of codes."""
        return UINT8 if self.bits == 4 else INT8

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        """Each output has its own codes, scales and offsets; the order is needed whole."""
        return None if self.order and part == 2 + self.offsets else (begin, end)

    def decode(
        self,
        parts: Sequence[Array],
        dtype: DType,
        out: Array | None = None,
        *,
        first_row: int = 0,
        where: str = "weight",
    ) -> Array:
        """The matrix ``[..., outputs, inputs]``, as `Encoding.decode` describes it.

        Scratch memory is below 1 MB, or 20 bytes per input if that is more. `out` may have any strides.
        """
        codes, scales, offsets, order = self._split(parts)
        self.check(parts, where)
        shape = (*codes.shape[:-1], codes.shape[-1] * 8 // self.bits)
        if out is None:
            out = np.empty(shape, dtype.storage)
        if out.shape != shape or out.dtype != dtype.storage:
            raise ValueError(f"out must be a {dtype.storage} array of shape {shape}, got {out.dtype} {out.shape}")
        step = max(1, _TILE_VALUES // max(shape[-1], 1))
        starts = range(0, shape[-2], step)
        for *stack, begin in product(*map(range, shape[:-2]), starts):
            tile: tuple[int | slice, ...] = (*stack, slice(begin, begin + step))
            shifts = None if offsets is None else offsets[tile]
            values = self._tile(codes[tile], scales[tile], shifts, dtype)
            columns = slice(None) if order is None else order[tuple(stack)]
            out[tile][:, columns] = values
        return out

    def check(self, parts: Sequence[Array], where: str) -> None:
        """Raises CheckpointError if a scale is NaN, infinite or zero, an offset is no integer of the code's range, or
        the order is no permutation.
        """
        _codes, scales, offsets, order = self._split(parts)
        values = self._float32(scales)
        wrong = ~(np.isfinite(values) & (values != 0))
        if wrong.any():
            place = np.unravel_index(int(wrong.argmax()), wrong.shape)
            raise CheckpointError(
                f"{where}: the scale of group {tuple(map(int, place))} is {values[place]}, not a finite number other"
                " than zero; download or convert it again"
            )
        if offsets is not None:
            _refuse_offsets(self._float32(offsets), 1 << self.bits - 1, where)
        if order is not None:
            _refuse_order(order, where)

    def _split(self, parts: Sequence[Array]) -> tuple[Array, Array, Array | None, Array | None]:
        codes, scales, *others = parts
        offsets = others.pop(0) if self.offsets else None
        order = others.pop(0) if self.order else None
        return codes, scales, offsets, order

    def _float32(self, scales: Array) -> Array:
        return cast(scales, self.scale_dtype, FLOAT32)

    def _tile(self, codes: Array, scales: Array, offsets: Array | None, dtype: DType) -> Array:
        """``[rows, inputs]`` in storage form of `dtype`."""
        levels = unpack(codes, self.bits).reshape(*scales.shape, self.group)
        if offsets is not None:
            levels += self._float32(offsets)[..., None]
        multipliers = self._float32(scales)[..., None]
        with np.errstate(over="ignore"):
            if self.scale_dtype == FLOAT32 and dtype != FLOAT32:
                values = _round_to_odd(levels.astype(np.float64) * multipliers)
            else:
                # Exact if the scales are shorter than float32: 9 bits times at most 11.
                values = np.multiply(levels, multipliers, out=levels)
            result = cast(values.reshape(len(codes), -1), FLOAT32, dtype)
        if not float(np.abs(multipliers).max(initial=0)) * (1 << self.bits) <= _LARGEST[dtype]:
            _refuse_infinity(result, dtype)
        return result


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Grouped | None:
    """int4 or int8 if the codes are there. Raises CheckpointError if the number of groups does not divide the
    inputs.
    """
    codes, scales = tensors.get(f"{weight}_codes"), tensors.get(f"{weight}_scales")
    if codes is None:
        return None
    bits = 8 if codes.dtype == INT8 else 4
    order = f"{weight}_order" in tensors
    if scales is None:
        return Grouped(bits, order=order)
    groups = scales.shape[-1] if scales.shape else 0
    if groups == 0 or shape[-1] % groups:
        raise CheckpointError(
            f"tensor {quote(scales.name)} has {groups} scales per output, which do not divide the {shape[-1]} inputs;"
            " download or convert the checkpoint again"
        )
    dtype = scales.dtype if scales.dtype in FLOATING else BFLOAT16  # another one is refused with the parts
    return Grouped(bits, shape[-1] // groups, dtype, f"{weight}_offsets" in tensors, order)


def unpack(codes: Array, bits: int) -> Array:
    """The codes ``[..., inputs]`` as float32, of a tensor of codes."""
    if bits == 8:
        return codes.astype(np.float32)
    levels = np.empty((*codes.shape[:-1], 2 * codes.shape[-1]), np.float32)
    # An arithmetic shift to the right extends the sign.
    levels[..., 0::2] = (codes << 4).view(np.int8) >> 4
    levels[..., 1::2] = codes.view(np.int8) >> 4
    return levels


def pack(levels: Array, bits: int) -> Array:
    """The tensor of codes that holds the integers `levels` ``[..., inputs]``; the inverse of `unpack`."""
    codes = levels.astype(np.int8)
    if bits == 8:
        return codes
    nibbles = codes.view(np.uint8)
    return (nibbles[..., 0::2] & 15) | nibbles[..., 1::2] << 4


def _refuse_group(weight: str, inputs: int, encoding: Grouped) -> None:
    group = encoding.group
    if encoding.bits == 4 and inputs % 2:
        raise UnsupportedError(f"tensor {quote(weight)}: int4 needs an even number of inputs, not {inputs}")
    if group == inputs or (group > 0 and group % GROUP_STEP == 0 and inputs % group == 0):
        return
    fitting = [size for size in range(GROUP_STEP, inputs, GROUP_STEP) if inputs % size == 0]
    choice = ", ".join(map(str, [*fitting[:6], inputs]))
    raise UnsupportedError(
        f"tensor {quote(weight)}: groups of {group} do not fit {inputs} inputs; possible sizes are {choice}"
    )


def _refuse_offsets(offsets: Array, most: int, where: str) -> None:
    # The comparison is False for NaN.
    right = (np.abs(offsets) <= most) & (np.floor(offsets) == offsets)
    if not right.all():
        place = np.unravel_index(int(right.argmin()), right.shape)
        raise CheckpointError(
            f"{where}: the offset of group {tuple(map(int, place))} is {offsets[place]}, not an integer from {-most} to"
            f" {most}; download or convert it again"
        )


def _refuse_order(order: Array, where: str) -> None:
    if not np.array_equal(np.sort(order, axis=-1), np.broadcast_to(np.arange(order.shape[-1]), order.shape)):
        raise CheckpointError(
            f"{where}: the order of the inputs is no permutation of 0 to {order.shape[-1] - 1}; download or convert it"
            " again"
        )


def _refuse_infinity(values: Array, dtype: DType) -> None:
    if np.isinf(cast(values, dtype, FLOAT32)).any():
        raise OverflowError(f"{dtype.name} cannot hold a code times its scale")


def _round_to_odd(values: Array) -> Array:
    """float64 to float32 such that a second rounding, to float16 or bfloat16, gives the nearest value: towards zero,
    with the last bit set where that was not exact.

    Source: Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd",
    2008.
    """
    nearest = values.astype(np.float32)
    bits = nearest.view(np.uint32)
    bits -= np.abs(nearest) > np.abs(values)
    bits |= nearest != values
    return nearest
