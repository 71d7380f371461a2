"""Calls the C++ functions of a compiled library with NumPy arrays, as MindSpore calls them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, Array, DType, cast


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor, and the name of its dtype in MindSpore."""

    array: Array
    dtype: str


def operand(array: Array, dtype: DType | None = None) -> Operand:
    """`array` in its own dtype, or in storage form of `dtype`."""
    return Operand(np.ascontiguousarray(array), array.dtype.name if dtype is None else dtype.name)


def stored(values: Array, dtype: DType) -> tuple[Operand, Array]:
    """float32 `values` rounded to `dtype`, and what they are then as float32."""
    bits = cast(values, FLOAT32, dtype)
    return operand(bits, dtype), cast(bits, dtype, FLOAT32)


PLAIN = {"float32": FLOAT32, "float16": FLOAT16, "bfloat16": BFLOAT16}


def call(library: Path, name: str, inputs: Sequence[Operand], shape: tuple[int, ...]) -> Array:
    """The float32 result of a function. Raises ValueError with the code that it returned, if that is not 0."""
    out = np.full(shape, np.nan, np.float32)
    operands = [*inputs, operand(out)]
    arrays = [each.array for each in operands]
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
    ranks = (ctypes.c_int * len(arrays))(*(array.ndim for array in arrays))
    of_shapes = (ctypes.c_void_p * len(arrays))(*(ctypes.addressof(each) for each in shapes))
    dtypes = (ctypes.c_char_p * len(arrays))(*(each.dtype.encode() for each in operands))
    code = getattr(ctypes.CDLL(str(library)), name)(len(arrays), pointers, ranks, of_shapes, dtypes, None, None)
    if code:
        raise ValueError(code)
    return out
