"""Element types: their names in each format, their storage in NumPy, and casts between the floating ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msport.errors import CheckpointError, UnsupportedError, quote

Array = NDArray[Any]

# Elements cast at a time: the temporaries (at most 9 bytes per element) stay in the L2 cache for a tensor of any size.
_CAST_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class DType:
    """An element type.

    ``safetensors`` and ``ckpt`` are its names in the two formats (``ckpt`` is None if MindSpore's loader does not
    support it); ``storage`` is the little-endian NumPy dtype that holds its bits. NumPy has neither bfloat16 nor
    float8: those are raw integers.
    """

    name: str
    safetensors: str
    ckpt: str | None
    storage: np.dtype[Any]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.storage.itemsize


FLOAT64 = DType("float64", "F64", "Float64", np.dtype("<f8"))
FLOAT32 = DType("float32", "F32", "Float32", np.dtype("<f4"))
FLOAT16 = DType("float16", "F16", "Float16", np.dtype("<f2"))
BFLOAT16 = DType("bfloat16", "BF16", "BFloat16", np.dtype("<u2"))
FLOAT8_E4M3FN = DType("float8_e4m3fn", "F8_E4M3", None, np.dtype("u1"))
FLOAT8_E5M2 = DType("float8_e5m2", "F8_E5M2", None, np.dtype("u1"))
FLOAT8_E8M0FNU = DType("float8_e8m0fnu", "F8_E8M0", None, np.dtype("u1"))
INT64 = DType("int64", "I64", "Int64", np.dtype("<i8"))
INT32 = DType("int32", "I32", "Int32", np.dtype("<i4"))
INT16 = DType("int16", "I16", "Int16", np.dtype("<i2"))
INT8 = DType("int8", "I8", "Int8", np.dtype("i1"))
UINT64 = DType("uint64", "U64", "UInt64", np.dtype("<u8"))
UINT32 = DType("uint32", "U32", "UInt32", np.dtype("<u4"))
UINT16 = DType("uint16", "U16", "UInt16", np.dtype("<u2"))
UINT8 = DType("uint8", "U8", "UInt8", np.dtype("u1"))
BOOL = DType("bool", "BOOL", "Bool", np.dtype("?"))

# Two int4 in a byte, as MindSpore's operators take them; no file has this dtype.
INT4_PAIRS = DType("qint4x2", "", None, np.dtype("i1"))

# What weights come in that are neither packed nor scaled; each can be cast to each.
FLOATING = (FLOAT32, FLOAT16, BFLOAT16)

DTYPES = (
    FLOAT64,
    FLOAT32,
    FLOAT16,
    BFLOAT16,
    FLOAT8_E4M3FN,
    FLOAT8_E5M2,
    FLOAT8_E8M0FNU,
    INT64,
    INT32,
    INT16,
    INT8,
    UINT64,
    UINT32,
    UINT16,
    UINT8,
    BOOL,
)

_BY_NAME = {dtype.name: dtype for dtype in DTYPES}
_BY_SAFETENSORS = {dtype.safetensors: dtype for dtype in DTYPES}
_BY_CKPT = {dtype.ckpt: dtype for dtype in DTYPES if dtype.ckpt is not None}


def by_name(name: str) -> DType:
    """The dtype that torch and MindSpore call ``name``; CheckpointError lists the known ones."""
    if name not in _BY_NAME:
        raise CheckpointError(f"unknown dtype {quote(name)}: choose one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def by_safetensors(name: str) -> DType | None:
    """The dtype of a safetensors header's ``dtype`` string, None if msport does not know it."""
    return _BY_SAFETENSORS.get(name)


def by_ckpt(name: str) -> DType | None:
    """The dtype of a ``.ckpt`` file's ``tensor_type`` string, None if msport does not know it."""
    return _BY_CKPT.get(name)


def cast(array: Array, source: DType, target: DType, out: Array | None = None) -> Array:
    """Cast between float32, float16 and bfloat16, rounding to nearest even.

    ``array`` and the result are in storage form and have the same shape; ``out`` (C-contiguous, no overlap with
    ``array``) receives the result if given. NaN stays NaN, with its sign; a value too large for float16 becomes
    infinite. Scratch memory is below 1 MB for a contiguous ``array``; any other is first copied. Raises
    UnsupportedError for any other pair of dtypes.
    """
    if array.dtype != source.storage:
        raise TypeError(f"{source.name} is held as {source.storage}, got an array of {array.dtype}")
    if out is None:
        out = np.empty(array.shape, target.storage)
    elif out.shape != array.shape or out.dtype != target.storage or not out.flags.c_contiguous:
        raise ValueError(f"out must be a C-contiguous {target.storage} array of shape {array.shape}")
    if source == target:
        np.copyto(out, array)
        return out
    convert = _CASTS.get((source, target))
    if convert is None:
        raise UnsupportedError(f"msport does not cast {source.name} to {target.name}")
    flat_in, flat_out = np.ascontiguousarray(array).reshape(-1), out.reshape(-1)
    for begin in range(0, math.prod(array.shape), _CAST_CHUNK):
        convert(flat_in[begin : begin + _CAST_CHUNK], flat_out[begin : begin + _CAST_CHUNK])
    return out


def _bfloat16_to_float32(bits: Array, out: Array) -> None:
    np.left_shift(bits, 16, out=out.view(np.uint32), dtype=np.uint32)


def _float32_to_bfloat16(values: Array, out: Array) -> None:
    bits = values.view(np.uint32)
    # Adding just under half of the last kept bit, plus that bit, and truncating rounds to nearest even.
    rounded = bits >> 16
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits
    rounded >>= 16
    out[...] = rounded
    nan = np.isnan(values)
    if nan.any():
        # Rounding could carry a NaN to infinity or zero: truncate its payload and set the quiet bit instead.
        out[nan] = (bits[nan] >> 16) | 0x40


def _bfloat16_to_float16(bits: Array, out: Array) -> None:
    values = np.empty(bits.shape, np.float32)
    _bfloat16_to_float32(bits, values)
    _native(values, out)


def _float16_to_bfloat16(values: Array, out: Array) -> None:
    _float32_to_bfloat16(values.astype(np.float32), out)


def _native(values: Array, out: Array) -> None:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        np.copyto(out, values, casting="same_kind")


_CASTS: dict[tuple[DType, DType], Callable[[Array, Array], None]] = {
    (FLOAT32, FLOAT16): _native,
    (FLOAT32, BFLOAT16): _float32_to_bfloat16,
    (FLOAT16, FLOAT32): _native,
    (FLOAT16, BFLOAT16): _float16_to_bfloat16,
    (BFLOAT16, FLOAT32): _bfloat16_to_float32,
    (BFLOAT16, FLOAT16): _bfloat16_to_float16,
}
