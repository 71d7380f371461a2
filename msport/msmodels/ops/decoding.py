"""Matrices as graphs hold them: a tuple of tensors, decoded in the graph when they are needed.

``msport.encodings`` says which tensors hold a matrix. "plain" is one tensor of any floating dtype. The decoders use
only floating-point arithmetic on whole tensors. Every device has it, and graph compilers fuse it, unlike shifts of
bytes.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

# The tensors of a matrix, in the order of `Encoding.parts`.
Matrix = tuple[Tensor, ...]

# 2 ** (scale - 127), by scale; 255 is NaN in the standard, and loading refuses it.
_POWERS = Tensor(np.ldexp(np.float32(1), np.minimum(np.arange(256), 254) - 127).astype(np.float32))


def decode(matrix: Matrix, encoding: str, dtype: ms.Type) -> Tensor:
    """A matrix that is not plain as ``[..., outputs, inputs]``, the inputs in the order in which `arrange` puts them.

    A byte that holds two inputs gives one to each half of the result. Interleaving them would move every weight once
    more. Instead, the activations are reordered, which are few.
    """
    return _DECODERS[encoding](matrix, dtype)


def arrange(x: Tensor, matrix: Matrix, encoding: str) -> Tensor:
    """The inputs ``x [..., inputs]`` in the order of the columns that `decode` gives.

    The matrix may be a stack of n matrices, for ``x [n, rows, inputs]``.
    """
    order = matrix[-1]
    if order.dtype == ms.int32:
        x = _ordered(x, order)
    if encoding in _HALVED:
        return even_first(x)
    return x


def decode_rows(matrix: Matrix, encoding: str, dtype: ms.Type) -> Tensor:
    """A matrix ``[outputs, inputs]`` that is not plain and has no order, the inputs in their own order."""
    values = decode(matrix, encoding, dtype)
    if encoding in _HALVED:
        rows, inputs = values.shape
        return values.reshape(rows, 2, inputs // 2).transpose(0, 2, 1).reshape(rows, inputs)
    return values


def even_first(x: Tensor) -> Tensor:
    """All even elements of the last axis, then all odd ones."""
    pairs = x.reshape(x.shape[:-1] + (x.shape[-1] // 2, 2))
    return ops.concat((pairs[..., 0], pairs[..., 1]), -1)


def take(matrix: Matrix, rows: Tensor, dtype: ms.Type) -> Matrix:
    """The `rows` of each tensor, to be decoded to `dtype`: outputs of a matrix without an order, or matrices of a
    stack.
    """
    found: Matrix = ()
    for part in matrix:
        found = found + (ops.gather(_movable(part, dtype), rows, 0),)
    return found


def cut(matrix: Matrix, first: int, end: int, dtype: ms.Type) -> Matrix:
    """The matrices ``[first, end)`` of a stack, as `take`."""
    found: Matrix = ()
    for part in matrix:
        found = found + (_movable(part, dtype)[first:end],)
    return found


def _movable(part: Tensor, dtype: ms.Type) -> Tensor:
    """`part` in a dtype that can be gathered and cut. A device that does not compute in bfloat16, as the CPU, moves
    none.
    """
    if part.dtype == ms.bfloat16 and dtype != ms.bfloat16:
        return part.astype(ms.float32)
    return part


def _ordered(x: Tensor, order: Tensor) -> Tensor:
    """Element ``order[i]`` of the last axis at place i."""
    if len(order.shape) == 1:
        return ops.gather(x, order, -1)
    places = ops.broadcast_to(ops.expand_dims(order, 1), x.shape)
    return ops.gather_elements(x, -1, places)


def _mxfp4(matrix: Matrix, dtype: ms.Type) -> Tensor:
    """``blocks [..., inputs / 32, 16]`` and ``scales [..., inputs / 32]``.

    A byte, its halves and all products are exact in float32 and bfloat16. The scales exceed float16's range, but the
    products do not, if the model fits float16.
    """
    blocks, scales = matrix
    wide = ms.float32 if dtype == ms.float16 else dtype
    low, high = _halves(blocks.astype(wide))
    scale = ops.expand_dims(ops.gather(_POWERS, scales.astype(ms.int32), 0).astype(wide), -1)
    columns = scales.shape[:-1] + (scales.shape[-1] * 16,)
    parts = ((_fp4(low) * scale).reshape(columns), (_fp4(high) * scale).reshape(columns))
    return ops.concat(parts, -1).astype(dtype)


def _int4(matrix: Matrix, dtype: ms.Type) -> Tensor:
    """``codes [..., inputs / 2]``, ``scales [..., groups]``, perhaps offsets and an order. Exact in float32."""
    codes, groups = matrix[0], matrix[1].shape[-1]
    low, high = _halves(codes.astype(ms.float32).reshape(codes.shape[:-1] + (groups, -1)))
    parts = (_scaled(_signed(low), matrix).reshape(codes.shape), _scaled(_signed(high), matrix).reshape(codes.shape))
    return ops.concat(parts, -1).astype(dtype)


def _int8(matrix: Matrix, dtype: ms.Type) -> Tensor:
    """``codes [..., inputs]``, and the rest as for int4."""
    codes, groups = matrix[0], matrix[1].shape[-1]
    grouped = codes.astype(ms.float32).reshape(codes.shape[:-1] + (groups, -1))
    return _scaled(grouped, matrix).reshape(codes.shape).astype(dtype)


def _scaled(codes: Tensor, matrix: Matrix) -> Tensor:
    """``(code + offset) * scale`` of ``codes [..., groups, inputs of a group]``."""
    if len(matrix) > 2 and matrix[2].dtype != ms.int32:
        codes = codes + ops.expand_dims(matrix[2].astype(ms.float32), -1)
    return codes * ops.expand_dims(matrix[1].astype(ms.float32), -1)


def _halves(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The low and the high half of each byte."""
    high = ops.floor(codes * 0.0625)
    return codes - high * 16, high


def _signed(code: Tensor) -> Tensor:
    """Two's complement: 8 to 15 are -8 to -1."""
    return code - ops.floor(code * 0.125) * 16


def _fp4(code: Tensor) -> Tensor:
    """The unscaled value of a code from 0 to 15: 0 .5 1 1.5 2 3 4 6, negative from 8 on.

    The magnitudes are convex: the largest of three lines through them.
    """
    negative = ops.floor(code * 0.125)
    magnitude = code - negative * 8
    value = ops.maximum(ops.maximum(magnitude * 0.5, magnitude - 2), magnitude * 2 - 8)
    return value * (1 - negative * 2)


# Encodings with two inputs in a byte.
_HALVED = ("mxfp4", "int4")
# By the name of the encoding.
_DECODERS: dict[str, Any] = {"mxfp4": _mxfp4, "int4": _int4, "int8": _int8}
