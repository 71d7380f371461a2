"""Plain tensors: one number per element."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOATING, Array, DType, cast
from msport.checkpoint.layout import TensorInfo
from msport.encodings.encoding import Part, Shape

# The dtypes that a plain tensor may have, its own first.
_OWN_FIRST = {own: (own, *(dtype for dtype in FLOATING if dtype != own)) for own in FLOATING}


@dataclass(frozen=True, slots=True)
class Plain:
    """A weight in one tensor of `dtype`. A stack of experts lies as ``[experts, inputs, outputs]``, as in
    Transformers.
    """

    dtype: DType

    @property
    def name(self) -> str:
        return self.dtype.name

    @property
    def exact_in(self) -> tuple[DType, ...]:
        return (self.dtype, FLOAT32)

    def parts(self, weight: str, shape: Shape) -> tuple[Part, ...]:
        return (Part(weight, stored_shape(shape), _OWN_FIRST[self.dtype]),)

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
        (values,) = parts
        matrix = cast(values, self.dtype, dtype)
        if values.ndim == 3:
            matrix = matrix.swapaxes(-1, -2)
        if out is None:
            return matrix
        np.copyto(out, matrix)
        return out


def stored_shape(shape: Shape) -> Shape:
    """The shape of the plain tensor that holds a matrix or vector ``[..., outputs, inputs]``."""
    return shape if len(shape) < 3 else (*shape[:-2], shape[-1], shape[-2])


def detect(weight: str, shape: Shape, tensors: Mapping[str, TensorInfo]) -> Plain | None:
    if weight not in tensors:
        return None
    found = tensors[weight].dtype
    return BY_DTYPE.get(found, BY_DTYPE[BFLOAT16])  # another dtype is refused when the parts are checked


BY_DTYPE = {dtype: Plain(dtype) for dtype in (FLOAT32, FLOAT16, BFLOAT16)}
