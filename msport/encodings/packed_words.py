"""Matrices of integers in 32-bit words, as the libraries of the community store them: GPTQ, AWQ, compressed-tensors.

Their tensors differ in which way the words run, in the order of the codes in a word, and in how a zero point is
written. Each of the three modules reads its own into a `PackedMatrix`. All that follows is here: decoding, and storing
the same integers as `Grouped`. Both are lossless, because a value is a small integer times a scale in all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import FLOAT32, FLOATING, Array, DType, cast
from msport.encodings.grouped import GROUP_STEP, Grouped
from msport.errors import CheckpointError, UnsupportedError, quote

WORD_BITS = 32
# Codes read at a time, and the fewest outputs: a row of words of AWQ then is a cache line.
_TILE_VALUES = 1 << 20
_TILE_OUTPUTS = 128


class Regroupable(ABC):
    """A packed encoding of another library, whose integers and scales `Grouped` can hold without a loss."""

    __slots__ = ()
    group: int

    @property
    def exact_in(self) -> tuple[DType, ...]:
        """float32, which holds a code times a shorter scale."""
        return self.grouped().exact_in

    @abstractmethod
    def grouped(self) -> Grouped:
        """What `regroup` makes of every layer with these fields, whatever its numbers are."""

    @abstractmethod
    def read(self, parts: Sequence[Array], first: int, end: int | None, where: str) -> PackedMatrix:
        """The outputs ``[first, end)``, None: all from `first` on; `parts` are whole or cut to `rows`."""

    def decode(
        self,
        parts: Sequence[Array],
        dtype: DType,
        out: Array | None = None,
        *,
        first_row: int = 0,
        where: str = "weight",
    ) -> Array:
        """The outputs from `first_row` on, as many as `out` has rows, or all; see `Encoding.decode`."""
        end = None if out is None else first_row + len(out)
        return decode(self.read(parts, first_row, end, where), dtype, out, where)

    def regroup(
        self, parts: Sequence[Array], where: str = "weight", target: Grouped | None = None
    ) -> tuple[Grouped, list[Array]]:
        """The same weights as `Grouped`, and its parts; see the function `regroup`."""
        return regroup(self.read(parts, 0, None, where), where, target)


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """A matrix ``[outputs, inputs]`` of integers of `bits`, scaled in groups of `group` inputs.

    ``codes(begin, end)`` gives the outputs ``[begin, end)`` as `Grouped` stores them, the inputs in their own order.
    `scales` are ``[outputs, inputs / group]`` in storage form of `scale_dtype`. `zero_points` have the same shape and
    the codes' signed range; None: all zero. `group_of_input` ``[inputs]`` is the table of act-order; None: ``i //
    group``.
    """

    bits: int
    group: int
    scale_dtype: DType
    inputs: int
    codes: Callable[[int, int], Array]
    scales: Array
    zero_points: Array | None
    group_of_input: Array | None

    @property
    def outputs(self) -> int:
        return len(self.scales)

    @property
    def tile_outputs(self) -> int:
        """The outputs that are read at a time."""
        step = max(_TILE_OUTPUTS, _TILE_VALUES // self.inputs // _TILE_OUTPUTS * _TILE_OUTPUTS)
        return min(step, self.outputs)

    def tiles(self) -> Iterator[tuple[int, int]]:
        """Ranges of outputs of bounded size that together are all."""
        step = self.tile_outputs or 1
        return ((begin, min(begin + step, self.outputs)) for begin in range(0, self.outputs, step))

    def grouped(self) -> Grouped:
        """The smallest encoding that holds this matrix: without offsets or an order that say nothing."""
        offsets = self.zero_points is not None and bool(self.zero_points.any())
        return Grouped(self.bits, self.group, self.scale_dtype, offsets, self.order() is not None)

    def order(self) -> Array | None:
        """The inputs sorted by group, int32 ``[inputs]``; None if they are sorted already."""
        table = self.group_of_input
        if table is None or bool((table[:-1] <= table[1:]).all()):
            return None
        # 16 bits are sorted by radix, several times as fast.
        short = table.astype(np.uint16) if self.inputs // self.group <= 1 << 16 else table
        order: Array = np.argsort(short, kind="stable").astype(np.int32)
        return order


def decode(matrix: PackedMatrix, dtype: DType, out: Array | None, where: str) -> Array:
    """The matrix in storage form of `dtype`, as `Encoding.decode` describes it.

    Scratch memory is below 8 MB, or 1 KB per input if that is more, and 8 bytes per scale. `out` may have any strides.
    """
    _check(matrix, where)
    if out is None:
        out = np.empty((matrix.outputs, matrix.inputs), dtype.storage)
    order = matrix.order()
    encoding = Grouped(matrix.bits, matrix.group, matrix.scale_dtype, matrix.zero_points is not None)
    if order is not None:
        back = np.empty_like(order)
        back[order] = np.arange(matrix.inputs, dtype=np.int32)
        sorted_columns = np.empty((matrix.tile_outputs, matrix.inputs), dtype.storage)
    for begin, end in matrix.tiles():
        parts = [permute(matrix.codes(begin, end), order, matrix.bits), matrix.scales[begin:end]]
        if encoding.offsets:
            parts.append(_offsets(matrix, begin, end))
        values = out[begin:end] if order is None else sorted_columns[: end - begin]
        encoding.decode(parts, dtype, values, where=where)
        if order is not None:
            # Gathering is faster than scattering; "clip" (nothing is ever clipped) does not buffer `out`.
            np.take(values, back, axis=1, out=out[begin:end], mode="clip")
    return out


def regroup(matrix: PackedMatrix, where: str, target: Grouped | None = None) -> tuple[Grouped, list[Array]]:
    """The same integers and scales as `Grouped` stores them, and the parts. Nothing is rounded.

    Without `target` it has no offsets or order that say nothing. A `target` was fixed before the tensors were read;
    CheckpointError if it has no room for an offset or order that they need. UnsupportedError for a size of groups that
    no kernel multiplies.
    """
    _check(matrix, where)
    smallest = matrix.grouped()
    target = target or smallest
    _refuse_group(matrix, where)
    if (smallest.offsets and not target.offsets) or (smallest.order and not target.order):
        what = "have zero points" if smallest.offsets and not target.offsets else "are in act-order"
        raise CheckpointError(
            f"{where}: the weights {what}, but quantization_config of config.json says that they do not; download the"
            " model again, or convert it decoded, with --dtype bfloat16"
        )
    order = matrix.order()
    codes = np.empty((matrix.outputs, matrix.inputs * matrix.bits // 8), target.code_dtype.storage)
    for begin, end in matrix.tiles():
        codes[begin:end] = permute(matrix.codes(begin, end), order, matrix.bits)
    parts = [codes, np.ascontiguousarray(matrix.scales)]
    if target.offsets:
        parts.append(_offsets(matrix, 0, matrix.outputs))
    if target.order:
        parts.append(np.arange(matrix.inputs, dtype=np.int32) if order is None else order)
    return target, parts


def permute(codes: Array, order: Array | None, bits: int) -> Array:
    """The columns of a `Grouped` tensor of codes in the order `order`."""
    if order is None:
        return codes
    levels: Array = np.take(codes if bits == 8 else unpack_nibbles(codes), order, axis=-1)
    return levels if bits == 8 else levels[..., 0::2] | levels[..., 1::2] << 4


def unpack_nibbles(data: Array) -> Array:
    """The 4-bit numbers 0..15 of uint8 `data` ``[..., n]``, the low half first: uint8 ``[..., 2 n]``."""
    nibbles = np.empty((*data.shape[:-1], data.shape[-1] * 2), np.uint8)
    np.bitwise_and(data, 15, out=nibbles[..., 0::2])
    np.right_shift(data, 4, out=nibbles[..., 1::2])
    return nibbles


def unpack_words(words: Array, bits: int) -> Array:
    """The unsigned numbers of `bits` in int32 `words` ``[..., n]``, lowest bits first: uint8 ``[..., 32 n / bits]``."""
    data = np.ascontiguousarray(words).view(np.uint8)
    return data if bits == 8 else unpack_nibbles(data)


def signed_codes(words: Array, bits: int) -> Array:
    """Rows of words of unsigned codes along the inputs as `Grouped` stores them: minus half the range, which flips the
    upper bit.
    """
    data = np.ascontiguousarray(words).view(np.uint8)
    if bits == 4:
        return data ^ np.uint8(0x88)
    return (data ^ np.uint8(0x80)).view(np.int8)


def as_floats(tensor_dtype: DType) -> tuple[DType, ...]:
    """The dtypes that scales may have, `tensor_dtype` first."""
    return (tensor_dtype, *(dtype for dtype in FLOATING if dtype != tensor_dtype))


def group_of(scales: str, groups: int, inputs: int) -> int:
    """The inputs per group. Raises CheckpointError if the number of groups does not divide the inputs."""
    if groups < 1 or inputs % groups:
        raise CheckpointError(
            f"tensor {quote(scales)} has {groups} groups, which do not divide the {inputs} inputs; take another"
            " quantization of the model, with groups of equal size"
        )
    return inputs // groups


def _offsets(matrix: PackedMatrix, begin: int, end: int) -> Array:
    if matrix.zero_points is None:
        return np.zeros((end - begin, matrix.scales.shape[1]), matrix.scale_dtype.storage)
    return cast(-matrix.zero_points[begin:end].astype(np.float32), FLOAT32, matrix.scale_dtype)


def _check(matrix: PackedMatrix, where: str) -> None:
    """Everything that can be wrong with the numbers, before anything is decoded."""
    Grouped(matrix.bits, matrix.group, matrix.scale_dtype).check([matrix.scales, matrix.scales], where)
    half = 1 << matrix.bits - 1
    if matrix.zero_points is not None:
        wrong = (matrix.zero_points < -half) | (matrix.zero_points >= half)
        if wrong.any():
            output, group = (int(place) for place in np.unravel_index(int(wrong.argmax()), wrong.shape))
            raise CheckpointError(
                f"{where}: the zero point of group ({output}, {group}) is {matrix.zero_points[output, group] + half},"
                f" outside of 0 to {2 * half - 1}, where libraries decode differently; download the model again, or"
                " another quantization of it"
            )
    if matrix.group_of_input is not None:
        _check_order(matrix, matrix.group_of_input, where)


def _check_order(matrix: PackedMatrix, table: Array, where: str) -> None:
    groups = matrix.inputs // matrix.group
    remedy = "download the model again, or another quantization of it"
    if table.min(initial=0) < 0 or table.max(initial=0) >= groups:
        wrong = int(table[(table < 0) | (table >= groups)][0])
        raise CheckpointError(f"{where}: g_idx names group {wrong}, but there are groups 0 to {groups - 1}; {remedy}")
    sizes = np.bincount(table, minlength=groups)
    if (sizes != matrix.group).any():
        wrong = int((sizes != matrix.group).argmax())
        raise CheckpointError(
            f"{where}: g_idx gives group {wrong} {sizes[wrong]} inputs instead of {matrix.group}, so it is no order of"
            f" the inputs; {remedy}"
        )


def _refuse_group(matrix: PackedMatrix, where: str) -> None:
    if matrix.group % GROUP_STEP and matrix.group != matrix.inputs:
        raise UnsupportedError(
            f"{where}: groups of {matrix.group} cannot stay packed, only multiples of {GROUP_STEP}; convert with"
            " --dtype bfloat16"
        )
