"""Block-scaled FP8 of DeepSeek-V3 and Qwen3-FP8, which is only a source: a conversion decodes it.

``checkpoint/fp8.py`` says what the bits mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint import fp8
from msport.checkpoint.dtypes import FLOAT8_E4M3FN, FLOAT32, FLOATING, Array, DType, cast
from msport.checkpoint.layout import TensorInfo
from msport.encodings.encoding import Part, Shape


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
        blocks = (-(-outputs // fp8.BLOCK), -(-inputs // fp8.BLOCK))
        others = tuple(dtype for dtype in FLOATING if dtype != self.scale_dtype)
        return (
            Part(weight, shape, (FLOAT8_E4M3FN,)),
            Part(f"{weight}{fp8.SCALES}", blocks, (self.scale_dtype, *others)),
        )

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        return (begin, end) if part == 0 else (begin // fp8.BLOCK, -(-end // fp8.BLOCK))

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
        fp8.decode(codes, cast(scales, self.scale_dtype, FLOAT32), first_row, values)
        matrix = values if dtype == FLOAT32 else cast(values, FLOAT32, dtype)
        if out is None or in_place:
            return matrix
        np.copyto(out, matrix)
        return out


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Fp8Blocks | None:
    scales = tensors.get(f"{weight}{fp8.SCALES}")
    if scales is None or len(shape) != 2:
        return None
    return Fp8Blocks(scales.dtype if scales.dtype in FLOATING else FLOAT32)
