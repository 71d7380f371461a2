"""Enough of MindSpore's tensors and operators over NumPy's float64 to run ``ops.portable`` and ``ops.ascend``.

Rounding would hide mistakes of 1e-6, and MindSpore has few float64 kernels; so the very source of both forms runs on
arrays in which float32, too, is float64.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from acceptance import contracts

from msport.msmodels.ops import decoding, mixture, portable
from msport.msmodels.ops.ascend import attention, fused, operators, signatures

_INTEGERS = (ms.int32, ms.int64)


class Array(np.ndarray):
    """An array with the methods of a tensor that the operators use."""

    def astype(self, dtype: Any, *rest: Any, **options: Any) -> Any:
        wanted = np.int64 if dtype in _INTEGERS else np.float64 if isinstance(dtype, ms.Type) else dtype
        return super().astype(wanted, *rest, **options)

    def __hash__(self) -> int:
        return id(self)


def array(values: Any) -> Array:
    return np.ascontiguousarray(values).view(Array)


def _product(transpose_b: bool = False) -> Any:
    return lambda x, y: x @ (np.swapaxes(y, -1, -2) if transpose_b else y)


def _softmax(x: Array, axis: int) -> Array:
    exponentials = np.exp(x - x.max(axis, keepdims=True))
    return exponentials / exponentials.sum(axis, keepdims=True)


def _topk(x: Array, k: int) -> tuple[Array, Array]:
    indices = np.argsort(-x, -1, kind="stable")[..., :k]
    return np.take_along_axis(x, indices, -1), indices


def _scatter_update(target: Array, rows: Array, updates: Array) -> Array:
    target[rows] = updates
    return target


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gather(x: Array, indices: Array, axis: int) -> Array:
    return array(np.take(x, indices, axis))


OPERATORS = SimpleNamespace(
    MatMul=_product,
    BatchMatMul=_product,
    add=np.add,
    amax=lambda x, axis, keep: x.max(axis, keepdims=keep),
    arange=lambda n: array(np.arange(n)),
    broadcast_to=lambda x, shape: array(np.broadcast_to(x, shape)),
    clamp=np.clip,
    concat=np.concatenate,
    depend=lambda x, _: x,
    exp=np.exp,
    expand_dims=np.expand_dims,
    floor=np.floor,
    floor_mod=np.mod,
    full=lambda shape, value, dtype: array(np.full(shape, value)),
    gather=_gather,
    log=np.log,
    logical_and=np.logical_and,
    logical_not=np.logical_not,
    maximum=np.maximum,
    mean=lambda x, axis, keep: x.mean(axis, keepdims=keep),
    minimum=np.minimum,
    rsqrt=lambda x: 1 / np.sqrt(x),
    scatter_update=_scatter_update,
    select=np.where,
    sigmoid=_sigmoid,
    silu=lambda x: x * _sigmoid(x),
    softmax=_softmax,
    split=lambda x, size, axis: np.split(x, x.shape[axis] // size, axis),
    square=np.square,
    sum=lambda x, axis, keep=False: x.sum(axis, keepdims=keep),
    tanh=np.tanh,
    topk=_topk,
    zeros=lambda shape, dtype: array(np.zeros(shape)),
    zeros_like=lambda x: array(np.zeros_like(x)),
)

_TYPES = SimpleNamespace(int32=np.dtype(np.int32), int64=np.dtype(np.int64), float32=np.dtype(np.float64))
# The fused operators.
ascend = SimpleNamespace(**fused(ms.bfloat16))


def put_arrays_in_place(patch: pytest.MonkeyPatch) -> None:
    """Both forms compute with `OPERATORS`, and the fused one with the operators' contracts."""
    for module in (portable, decoding, mixture, attention, operators):
        patch.setattr(module, "ops", OPERATORS)
    for contract in contracts.CONTRACTS:
        patch.setattr(signatures, contract.function, _on_arrays(contracts, contract.function))
    patch.setattr(signatures, "bias_dtype", lambda dtype: dtype)
    patch.setattr(decoding, "_POWERS", array(np.ldexp(1.0, np.minimum(np.arange(256), 254) - 127)))
    patch.setattr(operators, "ms", _TYPES)
    patch.setattr(attention, "HALF_DTYPES", (np.dtype(np.float64),))


def _on_arrays(module: ModuleType, name: str) -> Any:
    function = getattr(module, name)

    def call(*given: Any) -> Any:
        result = function(*given)
        return tuple(map(array, result)) if isinstance(result, tuple) else array(result)

    return call


__all__ = ["Array", "array", "ascend", "portable", "put_arrays_in_place"]
