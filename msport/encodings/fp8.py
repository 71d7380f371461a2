"""Block-scaled FP8 of DeepSeek-V3 and Qwen3-FP8: one float32 scale per block of 128 by 128 values. It is only a source:
a conversion decodes it.

A linear layer is ``X.weight``, float8_e4m3fn ``[out, in]``, and ``X.weight_scale_inv``, ``[ceil(out / 128), ceil(in /
128)]``: a value is its code times the scale of its block, in float32. (The scale is the inverse of the one that the
weights were multiplied by to fill the range of FP8, hence its name.) Source: ``weight_dequant`` in
https://github.com/deepseek-ai/DeepSeek-V3/blob/main/inference/kernel.py. The codes are those of OCP 8-bit Floating
Point 1.0: a sign, four bits of exponent with bias 7, three of mantissa; no infinity, and 0x7F and 0xFF are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint.dtypes import FLOAT8_E4M3FN, FLOAT32, FLOATING, Array, DType, cast
from msport.checkpoint.layout import TensorInfo
from msport.encodings.encoding import Part, Shape

BLOCK = 128
# Ends the name of a layer's scales, behind the name of its weight.
SCALES = "_scale_inv"


@dataclass(frozen=True, slots=True)
class Fp8Blocks:
    """Codes ``{weight} [outputs, inputs]`` and one scale for each block of 128 by 128, in `scale_dtype`."""

    scale_dtype: DType = FLOAT32
    name: str = "fp8"

    @property
    def exact_in(self) -> tuple[DType, ...]:
        return (FLOAT32,)

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        outputs, inputs = shape
        blocks = (-(-outputs // BLOCK), -(-inputs // BLOCK))
        others = tuple(dtype for dtype in FLOATING if dtype != self.scale_dtype)
        return (
            Part(weight, shape, (FLOAT8_E4M3FN,)),
            Part(f"{weight}{SCALES}", blocks, (self.scale_dtype, *others)),
        )

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        return (begin, end) if part == 0 else (begin // BLOCK, -(-end // BLOCK))

    def decode(
        self,
        parts: Sequence[Array],
        dtype: DType,
        out: Array | None = None,
        *,
        first_row: int = 0,
        where: str = "weight",
    ) -> Array:
        codes, scales = parts
        in_place = out is not None and dtype == FLOAT32 and out.flags.c_contiguous
        values = out if out is not None and in_place else np.empty(codes.shape, np.float32)
        decode(codes, cast(scales, self.scale_dtype, FLOAT32), first_row, values)
        matrix = values if dtype == FLOAT32 else cast(values, FLOAT32, dtype)
        if out is None or in_place:
            return matrix
        np.copyto(out, matrix)
        return out


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Fp8Blocks | None:
    scales = tensors.get(f"{weight}{SCALES}")
    if scales is None or len(shape) != 2:
        return None
    return Fp8Blocks(scales.dtype if scales.dtype in FLOATING else FLOAT32)


def code_values() -> NDArray[np.float32]:
    """The value of each of the 256 codes of float8_e4m3fn, float32."""
    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    magnitude = np.where(exponent, np.ldexp(1 + mantissa / 8, exponent - 7), np.ldexp(mantissa / 8, -6))
    magnitude[codes & 0x7F == 0x7F] = np.nan
    return np.copysign(magnitude, 0.5 - (codes >> 7)).astype(np.float32)


_VALUES = code_values()


def decode(codes: Array, scales: Array, first_row: int, out: Array) -> None:
    """Fill float32 ``out`` with rows ``[first_row, first_row + rows)`` of a layer.

    ``codes`` are uint8 ``[rows, in]``; ``scales`` are float32 ``[blocks, ceil(in / 128)]``, beginning with the row of
    blocks that holds ``first_row``. NaN stays NaN. Raises OverflowError if a finite value becomes infinite.
    """
    # Without a mode NumPy would buffer the whole result.
    np.take(_VALUES, codes, out=out, mode="clip")
    begin = 0
    for row_of_scales in scales:
        end = min(BLOCK - (first_row + begin) % BLOCK + begin, len(codes))
        try:
            with np.errstate(over="raise", invalid="ignore", under="ignore"):
                out[begin:end] *= np.repeat(row_of_scales, BLOCK)[: codes.shape[1]]
        except FloatingPointError:
            raise OverflowError("float32 cannot hold a value times its scale") from None
        begin = end
