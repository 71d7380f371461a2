"""The compiled form of MXFP4 decoding, ``msport/native/mxfp4.cpp``, loaded at first use if possible.

It gets the table of all values from NumPy, so every bit equals the NumPy form. It runs in the calling thread without
Python's lock and allocates no memory.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.native import library

_UNIT_SCALE = 127

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Table:
    """The values of every (scale, code), ``[256, 16]`` as unsigned integers, and the scales for which a sum gives them.

    The sum adds the difference of the scales, shifted by ``exponent_shift`` bits within the upper 16 bits, to the value
    at scale 127. Zeros are left out.
    """

    values: Array
    regular: Array
    exponent_shift: int


def make_table(values: Array, exponent_bit: int) -> Table:
    """The table of ``values`` whose exponent field begins at ``exponent_bit``."""
    bits = values.view(f"u{values.itemsize}")
    steps = (np.arange(256) - _UNIT_SCALE)[:, None] << exponent_bit
    zero = bits[_UNIT_SCALE] << 1 == 0  # of either sign; the shift drops the sign bit
    moved = bits[_UNIT_SCALE].astype(np.int64) + np.where(zero, 0, steps)
    regular = (moved == bits).all(axis=1).astype(np.uint8)
    return Table(np.ascontiguousarray(bits), regular, exponent_bit - 8 * (values.itemsize - 2))


def decode(blocks: Array, scales: Array, out: Array, table: Table) -> bool:
    """Decode checked ``blocks`` and ``scales`` into ``out``, as ``mxfp4.decode_transposed`` does.

    Returns False and does nothing if there is no compiled form or the innermost axes are not contiguous.
    """
    *prefix, rows, groups = scales.shape
    contiguous = blocks.strides[-2:] == (blocks.shape[-1], 1) and scales.strides[-1] == 1
    if not contiguous or out.strides[-1] != out.itemsize or (function := _function()) is None:
        return False
    for index in product(*map(range, prefix)):
        function(
            _address(blocks[index]),
            _address(scales[index]),
            _address(out[index]),
            rows,
            groups,
            blocks.strides[-3],
            scales.strides[-2],
            out.strides[-2],
            _address(table.values),
            _address(table.regular),
            table.exponent_shift,
            out.itemsize,
        )
    return True


def available() -> bool:
    """Whether this machine has the compiled form; compiles it if needed."""
    return _function() is not None


@cache
def _function() -> Callable[..., None] | None:
    path = library("mxfp4")
    if path is None:
        return None
    try:
        function = ctypes.CDLL(str(path)).mxfp4_decode
    except OSError as error:  # a file system mounted with noexec
        _log.warning("%s: MXFP4 is decoded by NumPy, several times slower", error)
        return None
    pointer, size, flag = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    function.argtypes = [*3 * [pointer], *5 * [size], *2 * [pointer], *2 * [flag]]
    function.restype = None
    kernel: Callable[..., None] = function
    return kernel


def _address(array: Array) -> Any:
    return array.__array_interface__["data"][0]
