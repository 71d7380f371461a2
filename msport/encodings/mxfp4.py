"""MXFP4, the packed four-bit weights of gpt-oss: blocks of 32 values along the inputs with one scale each.

``checkpoint/mxfp4.py`` says what the bits mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint import mxfp4
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, UINT8, Array, DType
from msport.checkpoint.layout import TensorInfo
from msport.encodings.encoding import Encoding, Part, Shape
from msport.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Mxfp4:
    """Codes ``{weight}_blocks [..., outputs, inputs / 32, 16]`` and ``{weight}_scales [..., outputs, inputs / 32]``."""

    name: str = "mxfp4"

    @property
    def exact_in(self) -> tuple[DType, ...]:
        return (BFLOAT16, FLOAT32)

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        if shape[-1] % mxfp4.BLOCK_VALUES:
            raise CheckpointError(f"{weight}: {shape[-1]} inputs; MXFP4 needs a multiple of {mxfp4.BLOCK_VALUES}")
        scales = (*shape[:-1], shape[-1] // mxfp4.BLOCK_VALUES)
        return (
            Part(f"{weight}_blocks", (*scales, mxfp4.BLOCK_BYTES), (UINT8,)),
            Part(f"{weight}_scales", scales, (UINT8,)),
        )

    def rows(self, part: int, begin: int, end: int) -> tuple[int, int] | None:
        return begin, end

    def decode(
        self,
        parts: Sequence[Array],
        dtype: DType,
        out: Array | None = None,
        *,
        first_row: int = 0,
        where: str = "weight",
    ) -> Array:
        blocks, scales = parts
        if out is None:
            out = np.empty((*scales.shape[:-1], scales.shape[-1] * mxfp4.BLOCK_VALUES), dtype.storage)
        # The decoder writes [..., inputs, outputs], to any strides.
        mxfp4.decode_transposed(blocks, scales, dtype, out=out.swapaxes(-1, -2), where=where)
        return out


MXFP4 = Mxfp4()
# The largest scale whose products stay finite in a dtype: 6 * 2 ** (scale - 127).
_LARGEST_SCALE = {FLOAT16: 140, BFLOAT16: 252, FLOAT32: 252}


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Mxfp4 | None:
    return MXFP4 if f"{weight}_blocks" in tensors else None


def refuse_overflow(encoding: Encoding, parts: Sequence[Array], dtype: DType, where: str) -> None:
    """Raises CheckpointError if a graph that decodes the `parts` of a matrix to `dtype` would get infinity.

    Only MXFP4 has scales that large; looking at them is quick.
    """
    if isinstance(encoding, Mxfp4) and (largest := int(parts[1].max(initial=0))) > _LARGEST_SCALE[dtype]:
        raise CheckpointError(
            f"{where} holds a scale of {largest}, which overflows {dtype.name}; load in another dtype"
        )
