"""The compiled form of the quantiser, ``msport/native/quantise.cpp``, loaded at first use if possible.

Every bit equals the NumPy form. It runs in the calling thread without Python's lock; its memory is 64 bytes per value
of a group.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, Array, DType
from msport.encodings.grouped import Grouped
from msport.native import library

_TYPES = {FLOAT32: 0, FLOAT16: 1, BFLOAT16: 2}

_log = logging.getLogger(__name__)


def quantise(values: Array, dtype: DType, encoding: Grouped, candidates: Array, out: Sequence[Array]) -> bool | None:
    """Fill `out`, the parts of ``[outputs, inputs]``, from `values` in storage form of `dtype`.

    All rows are contiguous; `candidates` are float32. Returns False if a value is not finite, None if there is no
    compiled form.
    """
    function = _function()
    if function is None:
        return None
    codes, scales, *offsets = out
    wrong = function(
        _address(values),
        *values.shape,
        encoding.group,
        values.strides[0],
        _TYPES[dtype],
        encoding.bits,
        _TYPES[encoding.scale_dtype],
        _address(candidates),
        candidates.size,
        _address(codes),
        codes.strides[0],
        _address(scales),
        _address(offsets[0]) if offsets else None,
        scales.strides[0],
    )
    return not wrong


def available() -> bool:
    """Whether this machine has the compiled form; compiles it if needed."""
    return _function() is not None


@cache
def _function() -> Callable[..., int] | None:
    path = library("quantise")
    if path is None:
        return None
    try:
        function = ctypes.CDLL(str(path)).quantise_groups
    except OSError as error:  # a file system mounted with noexec
        _log.warning("%s: weights are quantised by NumPy, many times slower", error)
        return None
    pointer, size, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    function.argtypes = [pointer, *4 * [size], *3 * [flag], pointer, size, pointer, size, pointer, pointer, size]
    function.restype = flag
    kernel: Callable[..., int] = function
    return kernel


def _address(array: Array) -> Any:
    return array.__array_interface__["data"][0]
