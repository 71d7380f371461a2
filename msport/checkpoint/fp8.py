"""Block-scaled FP8 of DeepSeek-V3 and Qwen3-FP8: one float32 scale per block of 128 by 128 values.

A linear layer is ``X.weight``, float8_e4m3fn ``[out, in]``, and ``X.weight_scale_inv``, ``[ceil(out / 128), ceil(in /
128)]``: a value is its code times the scale of its block, in float32. (The scale is the inverse of the one that the
weights were multiplied by to fill the range of FP8, hence its name.) Source: ``weight_dequant`` in
https://github.com/deepseek-ai/DeepSeek-V3/blob/main/inference/kernel.py. The codes are those of OCP 8-bit Floating
Point 1.0: a sign, four bits of exponent with bias 7, three of mantissa; no infinity, and 0x7F and 0xFF are NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BLOCK = 128
# Ends the name of a layer's scales, behind the name of its weight.
SCALES = "_scale_inv"


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
