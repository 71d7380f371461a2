"""The CPU's fused operators in C++ (``msport.native``). MindSpore's own operators would need up to ten passes or copy
weights.

They accept only float32 activations. `fused` lists those that a model of another dtype can still use. Products read
weights as they lie, in any encoding, and widen them in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor, ops
from mindspore.ops import signature

from msport.msmodels.ops import portable
from msport.msmodels.ops.decoding import Matrix
from msport.native import library

_LIBRARY = library()
_NATIVE = _LIBRARY is not None
Shape = list[int]


def fused(dtype: ms.Type) -> Mapping[str, Callable[..., Any]]:
    """The operators of this module that a model of `dtype` uses, by name; none without a C++ compiler."""
    if not _NATIVE:
        return {}
    if dtype != ms.float32:
        return {"soft_cap": soft_cap}  # of logits, which are float32 in every model
    return {name: globals()[name] for name in portable.__all__ if name in globals()}


def _float32(*_inputs: ms.Type) -> ms.Type:
    return ms.float32


def _float32_twice(*_inputs: ms.Type) -> tuple[ms.Type, ms.Type]:
    return ms.float32, ms.float32


def _kernel(name: str, shape: Callable[..., Any], dtype: Callable[..., Any] = _float32) -> Any:
    """The C++ function `name` as an operator; `shape` and `dtype` compute those of the outputs from the inputs'."""
    return ops.Custom(f"{_LIBRARY}:{name}", shape, dtype, func_type="aot") if _NATIVE else None


def _as_first(first: Shape, *_others: Shape) -> Shape:
    return first


def _as_first_twice(first: Shape, *_others: Shape) -> tuple[Shape, Shape]:
    return first, first


def _half_of_first(first: Shape, *_others: Shape) -> Shape:
    return [first[0], first[1] // 2]


def _heads_joined(query: Shape, *_others: Shape) -> Shape:
    return [query[0] * query[1], query[2] * query[3]]


def _row_per_token(x: Shape, first: Shape, *_others: Shape) -> Shape:
    return [x[0], first[0]]


def _row_per_group(_x: Shape, group: Shape, first: Shape, *_others: Shape) -> Shape:
    return [group[0], first[1]]


def _plain_row_per_group(_x: Shape, group: Shape, weight: Shape, *_bias: Shape) -> Shape:
    return [group[0], weight[2]]


def _row_per_id(ids: Shape, table: Shape) -> Shape:
    return [ids[0], table[1]]


# Products of rows with a matrix, and with the matrix of the group to which each row is routed; by encoding.
# `linear.cpp` states the shapes.
_LINEAR = {
    "plain": _kernel("linear", _row_per_token),
    "mxfp4": _kernel("linear_mxfp4", _row_per_token),
    "int4": _kernel("linear_int4", _row_per_token),
    "int8": _kernel("linear_int8", _row_per_token),
}
_GROUPED = {
    "plain": _kernel("grouped_linear", _plain_row_per_group),
    "mxfp4": _kernel("grouped_linear_mxfp4", _row_per_group),
    "int4": _kernel("grouped_linear_int4", _row_per_group),
    "int8": _kernel("grouped_linear_int8", _row_per_group),
}
_embedding = _kernel("embedding", _row_per_id)
_rms_norm = _kernel("rms_norm", _as_first)
_add_rms_norm = _kernel("add_rms_norm", _as_first_twice, _float32_twice)
_rotate_and_cache = _kernel("rotate_and_cache", _as_first)
if _NATIVE:
    # The graph compiler then hands over the caches themselves, never copies, and keeps the order of reads and writes.
    _rotate_and_cache.add_prim_attr("side_effect_mem", True)
    _rotate_and_cache.set_signatures(
        [
            signature.make_sig(name, *((signature.sig_rw.RW_WRITE,) if name.endswith("_cache") else ()))
            for name in ("query", "key", "value", "cos", "sin", "key_cache", "value_cache", "slots")
        ]
    )
_gated_silu = _kernel("gated_silu", _as_first)
_gated_gelu_tanh = _kernel("gated_gelu_tanh", _as_first)
_swiglu = _kernel("swiglu", _half_of_first)
_clamped_swiglu = _kernel("clamped_swiglu", _half_of_first)
_soft_cap = _kernel("soft_cap", _as_first)
_attention = _kernel("attention", _heads_joined)


def linear(x: Tensor, matrix: Matrix, bias: Tensor | None, encoding: str) -> Tensor:
    """As ``portable.linear``; reads the weight once, as it lies."""
    if matrix[-1].dtype == ms.int32:
        return _with_bias(_LINEAR[encoding], (ops.gather(x, matrix[-1], -1),), matrix[:-1], bias)
    return _with_bias(_LINEAR[encoding], (x,), matrix, bias)


def _with_bias(kernel: Any, inputs: tuple[Tensor, ...], matrix: Matrix, bias: Tensor | None) -> Tensor:
    if bias is None:
        return kernel(*inputs, *matrix)
    return kernel(*inputs, *matrix, bias)


def embedding(ids: Tensor, matrix: Matrix, dtype: ms.Type, encoding: str) -> Tensor:
    """As ``portable.embedding``; widens only the rows that are asked for."""
    if encoding != "plain":
        return portable.embedding(ids, matrix, dtype, encoding)
    return _embedding(ids.reshape(-1), matrix[0])


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """As ``portable.rms_norm``."""
    return _rms_norm(x, weight, Tensor([epsilon], ms.float32))


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """As ``portable.add_rms_norm``."""
    normalised, total = _add_rms_norm(x, residual, weight, Tensor([epsilon], ms.float32))
    return normalised, total


def rotate_and_cache(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor,
    sin: Tensor,
    key_cache: Parameter,
    value_cache: Parameter,
    slots: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``portable.rotate_and_cache``; what reads the caches depends on the rotated query, so it runs afterwards."""
    rotated = _rotate_and_cache(query, key, value, cos, sin, key_cache, value_cache, slots)
    return rotated, ops.depend(key_cache, rotated), ops.depend(value_cache, rotated)


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """As ``portable.gated_silu``."""
    return _gated_silu(gate, up)


def gated_gelu_tanh(gate: Tensor, up: Tensor) -> Tensor:
    """As ``portable.gated_gelu_tanh``."""
    return _gated_gelu_tanh(gate, up)


def swiglu(x: Tensor) -> Tensor:
    """As ``portable.swiglu``."""
    return _swiglu(x)


def clamped_swiglu(x: Tensor, limit: float, alpha: float) -> Tensor:
    """As ``portable.clamped_swiglu``."""
    return _clamped_swiglu(x, Tensor([limit, alpha], ms.float32))


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """As ``portable.soft_cap``."""
    return _soft_cap(x, Tensor([cap], ms.float32))


def attention_mask(positions: Tensor, length: int, window: int | None, dtype: ms.Type) -> Any:
    """The positions with window and length; the kernel itself computes which slots a query sees."""
    return positions, 0 if window is None else window, length


def attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Any,
    scale: float,
    sinks: Tensor | None,
    softcap: float | None,
) -> Tensor:
    """As ``portable.attention``; reads only the slots that are seen."""
    positions, window, length = mask
    constants = Tensor([scale, 0.0 if softcap is None else softcap, window, length], ms.float32)
    if sinks is None:
        return _attention(query, keys, values, positions, constants)
    return _attention(query, keys, values, positions, constants, sinks)


def experts(
    x: Tensor,
    indices: Tensor,
    weights: Tensor,
    gate_up: Matrix,
    gate_up_bias: Tensor | None,
    down: Matrix,
    down_bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
    encodings: tuple[str, str],
) -> Tensor:
    """As ``portable.experts``; reads each expert that has tokens once, in place, and no other expert."""
    group = indices.astype(ms.int32).reshape(-1)
    projected = _with_bias(_GROUPED[encodings[0]], (x, group), gate_up, gate_up_bias)  # [tokens * k, 2 * intermediate]
    y = _with_bias(_GROUPED[encodings[1]], (activation(projected), group), down, down_bias)
    return _weighted(y, weights)


def _weighted(y: Tensor, weights: Tensor) -> Tensor:
    """The sum of each token's k rows of ``y [tokens * k, hidden]`` by ``weights [tokens, k]``: ``[tokens, hidden]``."""
    tokens, k = weights.shape
    return ops.BatchMatMul()(weights.reshape(tokens, 1, k), y.reshape(tokens, k, -1)).reshape(tokens, -1)
