"""Weights to int4 or int8 in groups: for each group the scale, of nine, with the least squared error.

The scales divide the group's range by the numbers of a list. With the first, the usual one, the value of largest
magnitude gets the code 7 or 127; so no group is worse than with it. Symmetric scales have the sign that gives this
value a negative code, of which there is one more. Each scale is rounded to its dtype before its error is measured. With
offsets, the zero point is the integer that puts the middle of the codes on the middle of the range, zero included.

The divisors were chosen one after the other, each for the largest gain, on Gaussian weights and on those of the demo's
SmolLM2. Divisors above 8.5 clip the largest value of a symmetric int4 group. In groups of 32 they lower the squared
error a little further (1 % on Gaussian weights), but the mean KL divergence of that model over 2,000 tokens was 0.283
with them, 0.277 without and 0.282 with the rule of Q4_0. So small groups do without. (That model is decoded from a
4-bit file, Q4_1, so this is one weak observation.) In large groups clipping lowers the error by up to 40 %.

What others do: llama.cpp's Q4_0 takes ``max / -8`` without a search. Its make_qx_quants, for other types, tries 19
divisors around -8, each with a least-squares fit weighted by the squared weights, and rounds the scale afterwards. HQQ
keeps the scale of the range and fits a fractional zero point to a norm below 1. AWQ and GPTQ need activations of sample
text, which a conversion does not have; without them every input counts the same, and the error of a layer is the
squared error of its weights. float32 holds these squares for weights from about 1e-18 to 1e18; others get the first
scale.

Sources: ``quantize_row_q4_0_ref`` and ``make_qx_quants`` in ggml/src/ggml-quants.c of ggml-org/llama.cpp;
``optimize_weights_proximal`` in hqq/core/optimize.py of mobiusml/hqq; ``auto_clip`` of mit-han-lab/llm-awq.

If there is a C++ compiler, ``quantise_kernel`` does this. This NumPy code is the definition and the fallback; both give
the same bits on every processor, because all operations are single float32 ones and sums run in the order of the
inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint.dtypes import FLOAT16, FLOAT32, FLOATING, Array, DType, cast
from msport.encodings import quantise_kernel
from msport.encodings.grouped import Grouped, pack
from msport.errors import CheckpointError, UnsupportedError

Floats = NDArray[np.float32]

# Values quantised at a time: the temporaries (about 30 bytes per value) stay in the L2 cache.
_TILE_VALUES = 1 << 15
# Values that are copied at a time if their rows are not contiguous.
_COPIED_VALUES = 1 << 20
# Below these a dtype of scales is not normal or, in float16, zero.
_LEAST_SCALE = {FLOAT16: 2.0**-24}
_LEAST_NORMAL = 2.0**-126
# By bits and whether there are offsets: the largest group, and the divisors. The kernel does without bounds where three
# divisors in turn reach none.
_DIVISORS: dict[tuple[int, bool], list[tuple[float, list[float]]]] = {
    (4, False): [
        (64, [-7, -7.25, -6.25, -7.5, -7.75, -8, -8.125, -8.25, -8.375]),
        (256, [-7, -7.875, -8.125, -8.5, -8.75, -9, -9.375, -9.875, -10.375]),
        (math.inf, [-7, -8.25, -9, -9.5, -10.25, -10.75, -11.5, -12.75, -14.75]),
    ],
    (4, True): [
        (64, [15, 12, 12.75, 13.5, 14.25, 14.75, 15.25, 15.75, 16.5]),
        (256, [15, 14.25, 15.5, 15.75, 16, 16.5, 16.75, 17.25, 17.75]),
        (math.inf, [15, 16, 17.5, 18, 18.5, 19, 19.5, 20.5, 22]),
    ],
    (8, False): [(math.inf, [-127, -126, -125, -124, -123, -122, -121, -120, -128])],
    (8, True): [(math.inf, [255, 240, 243, 245, 246, 248, 250, 252, 254])],
}


def quantise(
    values: Array, dtype: DType, encoding: Grouped, out: Sequence[Array] | None = None, *, where: str = "weight"
) -> tuple[Array, ...]:
    """The parts of `encoding` that hold `values` ``[..., outputs, inputs]``, in storage form of a floating `dtype`.

    `out`, with contiguous rows, receives them if given. Any range of outputs may be quantised by itself, and in another
    thread. Scratch memory is below 4 MB, or 64 bytes per value of a group if that is more. A group of zeros gets scale
    1. `where` names the tensor in errors, with its file if possible. Raises CheckpointError for a value that is not
    finite and UnsupportedError for inputs that the groups do not fit and for scales beyond their dtype.
    """
    if values.dtype != dtype.storage or dtype not in FLOATING or encoding.order:
        raise TypeError(f"no way from {dtype.name} held as {values.dtype} to {encoding}")
    parts = encoding.parts(where, values.shape)
    if out is None:
        out = [np.empty(part.shape, part.dtype.storage) for part in parts]
    for part, array in zip(parts, out, strict=True):
        rows_contiguous = array.shape[-1] == 1 or array.strides[-1] == array.itemsize
        if array.shape != part.shape or array.dtype != part.dtype.storage or not rows_contiguous:
            raise ValueError(f"out must be {part.dtype.storage} of shape {part.shape} with contiguous rows")
    for stack in product(*map(range, values.shape[:-2])):
        _matrix(values[stack], dtype, encoding, [array[stack] for array in out], where)
    if not np.isfinite(cast(out[1], encoding.scale_dtype, FLOAT32)).all():
        raise UnsupportedError(
            f"{where}: {encoding.scale_dtype.name} cannot hold the scale of its largest value; choose scales of another"
            " dtype"
        )
    return tuple(out)


def _matrix(values: Array, dtype: DType, encoding: Grouped, out: list[Array], where: str) -> None:
    contiguous = values.shape[1] == 1 or values.strides[1] == values.itemsize
    step = len(values) if contiguous else max(1, _COPIED_VALUES // values.shape[1])
    candidates = divisors(encoding)
    for begin in range(0, len(values), step or 1):
        rows = slice(begin, begin + step)
        source = values[rows] if contiguous else np.ascontiguousarray(values[rows])
        targets = [array[rows] for array in out]
        finite = quantise_kernel.quantise(source, dtype, encoding, candidates, targets)
        if finite is None:
            finite = _in_numpy(source, dtype, encoding, candidates, targets)
        if not finite:
            _refuse(source, dtype, begin, where)


def _refuse(values: Array, dtype: DType, first_row: int, where: str) -> None:
    for row, line in enumerate(values):
        found = cast(line, dtype, FLOAT32)
        (columns,) = np.nonzero(~np.isfinite(found))
        if columns.size:
            raise CheckpointError(
                f"{where}: the weight of output {first_row + row} and input {columns[0]} is {found[columns[0]]}, which"
                " has no code; download the file again"
            )


@cache
def divisors(encoding: Grouped) -> Floats:
    """What a group's range is divided by to get the scales that are tried, the usual one first; float32."""
    lists = _DIVISORS[encoding.bits, encoding.offsets]
    return np.array(next(numbers for most, numbers in lists if encoding.group <= most), np.float32)


@dataclass(frozen=True, slots=True)
class _Levels:
    """The levels (codes plus offset) of groups, ``[groups]`` each: from `low` on, `high` at most."""

    scale: Floats
    inverse: Floats
    low: Floats
    high: Floats

    def of(self, scaled: Floats) -> Floats:
        """The level of each value, which is already divided by the scale."""
        levels = np.clip(scaled, self.low, self.high)
        return np.rint(levels, out=levels)


@dataclass(frozen=True, slots=True)
class _Groups:
    """Values ``[group, groups]``; `span` is the value of largest magnitude or, with offsets, the range."""

    encoding: Grouped
    values: Floats
    span: Floats
    middle: Floats

    def levels(self, scale: Floats) -> _Levels:
        scale = _as_scale(scale, self.encoding.scale_dtype)
        inverse = np.float32(1) / scale
        top = np.float32((1 << self.encoding.bits) - 1)
        if self.encoding.offsets:
            low = np.clip(np.rint(self.middle * inverse - np.float32(0.5) * top), -top, np.float32(0))
        else:
            low = np.full_like(scale, -1 << self.encoding.bits - 1)
        return _Levels(scale, inverse, low, low + top)

    def error(self, at: _Levels) -> Floats:
        """The squared error of each group."""
        scaled = self.values * at.inverse
        scaled -= at.of(scaled)
        return _sum(np.multiply(scaled, scaled, out=scaled)) * at.scale * at.scale


def _in_numpy(values: Array, dtype: DType, encoding: Grouped, candidates: Floats, out: list[Array]) -> bool:
    """As `quantise_kernel.quantise`."""
    rows = max(1, _TILE_VALUES // values.shape[1])
    for begin in range(0, len(values), rows):
        tile = slice(begin, begin + rows)
        weights = cast(values[tile], dtype, FLOAT32)
        if not np.isfinite(weights).all():
            return False
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            levels, best = _quantised(weights.reshape(-1, encoding.group), encoding, candidates)
        offsets = best.low + np.float32(1 << encoding.bits - 1)
        codes = np.ascontiguousarray((levels - offsets).T).reshape(weights.shape)
        for target, source in zip(out[1:], (best.scale, offsets), strict=False):
            target[tile] = cast(source.reshape(target[tile].shape), FLOAT32, encoding.scale_dtype)
        out[0][tile] = pack(codes, encoding.bits)
    return True


def _quantised(weights: Floats, encoding: Grouped, candidates: Floats) -> tuple[Floats, _Levels]:
    """The levels ``[group, groups]`` of ``[groups, group]``, and what they mean."""
    groups = _groups(weights, encoding, candidates[0])
    best = groups.levels(groups.span / candidates[0])
    least = groups.error(best)
    for candidate in candidates[1:]:
        best, least = _better(groups, groups.levels(groups.span / candidate), best, least)
    return best.of(groups.values * best.inverse), best


def _groups(weights: Floats, encoding: Grouped, usual: np.float32) -> _Groups:
    low, high = weights.min(axis=1), weights.max(axis=1)
    if encoding.offsets:
        low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
        span = high - low
    else:
        span = np.where(high >= -low, high, low)
    span = np.where(span == 0, usual, span)
    return _Groups(encoding, np.ascontiguousarray(weights.T), span, (low + high) * np.float32(0.5))


def _better(groups: _Groups, candidate: _Levels, best: _Levels, least: Floats) -> tuple[_Levels, Floats]:
    error = groups.error(candidate)
    better = error < least
    merged = _Levels(
        np.where(better, candidate.scale, best.scale),
        np.where(better, candidate.inverse, best.inverse),
        np.where(better, candidate.low, best.low),
        np.where(better, candidate.high, best.high),
    )
    return merged, np.where(better, error, least)


def _as_scale(values: Floats, dtype: DType) -> Floats:
    """`values` as `dtype` has them, in float32; a smaller magnitude than a scale may have becomes the smallest one."""
    rounded = cast(cast(values, FLOAT32, dtype), dtype, FLOAT32)
    return np.copysign(np.maximum(np.abs(rounded), np.float32(_LEAST_SCALE.get(dtype, _LEAST_NORMAL))), rounded)


def _sum(terms: Floats) -> Floats:
    """The sum over the first axis, in its order; overwrites `terms`."""
    total: Floats = np.add.accumulate(terms, axis=0, out=terms)[-1]
    return total
