"""The fused operators other than attention: products, norms, rotary embedding, activations, caches and experts.

Each takes and gives what the function of the same name in ``ops.portable`` does.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from msport.checkpoint.dtypes import Array
from msport.msmodels.ops import portable
from msport.msmodels.ops.ascend import signatures
from msport.msmodels.ops.decoding import Matrix


def linear(x: Tensor, matrix: Matrix, bias: Tensor | None, encoding: str) -> Tensor:
    """As ``portable.linear``; int4 and int8 that loading has transposed are decoded inside the product."""
    if encoding != "transposed":
        return portable.linear(x, matrix, bias, encoding)
    if matrix[-1].dtype == ms.int32:
        x = ops.gather(x, matrix[-1], -1)
    y = signatures.weight_quant_matmul(x, matrix[0], matrix[1], _offsets(matrix))
    if bias is None:
        return y
    return ops.add(y, bias)


def _offsets(matrix: Matrix) -> Tensor | None:
    return None if len(matrix) == 2 or matrix[2].dtype == ms.int32 else matrix[2]


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """As ``portable.rms_norm``. If the weight has a wider dtype (Gemma's 1 + w, float32), the sum uses it."""
    if x.dtype == weight.dtype:
        return signatures.rms_norm(x, weight, epsilon)
    return signatures.rms_norm(x.astype(weight.dtype), weight, epsilon).astype(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """As ``portable.add_rms_norm``."""
    if x.dtype == weight.dtype:
        return signatures.add_rms_norm(x, residual, weight, epsilon)
    # The sum is rounded to the dtype of the residual stream before it is normalised, as in the reference.
    total = x + residual
    return rms_norm(total, weight, epsilon), total


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As ``portable.apply_rotary``, computed in the dtype of `x` as the reference implementations do.

    The operator needs cos and sin with the length of a head and in the dtype of `x`. The graph compiler prepares this
    once for all layers.
    """
    if not signatures.HAS_ROTARY:
        return portable.apply_rotary(x, cos, sin)
    return signatures.rotary(x, _widen(cos, x), _widen(sin, x))


def _widen(table: Tensor, x: Tensor) -> Tensor:
    return ops.concat((table, table), -1).astype(x.dtype)


def swiglu(x: Tensor) -> Tensor:
    """As ``portable.swiglu``."""
    return signatures.swiglu(x)


def arrange_gate_up(array: Array, axis: int) -> Array:
    """Puts all gates first along `axis`, then all up projections, so that `clamped_swiglu` reads two halves.

    Reading every second element would cost a strided pass over the activations of every layer and token on an NPU. This
    costs only one copy when the weights are loaded.
    """
    even, odd = (np.take(array, np.arange(first, array.shape[axis], 2), axis) for first in (0, 1))
    return np.concatenate((even, odd), axis)


def clamped_swiglu(x: Tensor, limit: float, alpha: float) -> Tensor:
    """As ``portable.clamped_swiglu``, in plain operators, for ``x [..., 2 * size]`` arranged by `arrange_gate_up`."""
    gate, up = ops.split(x, x.shape[-1] // 2, -1)
    gate = ops.minimum(gate, limit)
    return gate * ops.sigmoid(gate * alpha) * (ops.clamp(up, -limit, limit) + 1)


def update_cache(
    key_cache: Parameter, value_cache: Parameter, slots: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """As ``portable.update_cache``, with the same layout, which the attention operators read directly."""
    rows = (-1, key.shape[-1])
    keys = signatures.index_copy(key_cache, slots, key.reshape(rows))
    values = signatures.index_copy(value_cache, slots, value.reshape(rows))
    return ops.depend(key_cache, keys), ops.depend(value_cache, values)


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
    """As ``portable.rotate_and_cache``, by this file's `apply_rotary` and `update_cache`."""
    keys, values = update_cache(key_cache, value_cache, slots, apply_rotary(key, cos, sin), value)
    return apply_rotary(query, cos, sin), keys, values


def softmax_top_k(logits: Tensor, k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """As ``portable.softmax_top_k``."""
    shares, indices = signatures.gating_top_k_softmax(logits.astype(ms.float32), k)
    if normalize:
        shares = shares / ops.sum(shares, -1, True)
    return shares, indices


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
    """As ``portable.experts``: tokens sorted by expert, each expert's weights read once and only if it has tokens.
    int4 and int8 that loading has transposed are decoded inside the product, other packed experts in the graph.
    """
    if not _is_fused(encodings[0]) or not _is_fused(encodings[1]):
        return portable.experts(x, indices, weights, gate_up, gate_up_bias, down, down_bias, activation, encodings)
    rows, destinations, counts = signatures.init_routing(x, indices.astype(ms.int32), gate_up[0].shape[0])
    counts = counts.astype(ms.int64)
    projected = _grouped(rows, gate_up, gate_up_bias, counts, encodings[0])
    y = _grouped(activation(projected), down, down_bias, counts, encodings[1])
    # The routing weights are rounded to the dtype of the activations, as in the reference implementations.
    return signatures.token_unpermute(y, destinations, weights.astype(x.dtype))


def _is_fused(encoding: str) -> bool:
    return encoding in ("plain", "transposed")


def _grouped(x: Tensor, matrix: Matrix, bias: Tensor | None, counts: Tensor, encoding: str) -> Tensor:
    if encoding == "plain":
        return signatures.grouped_matmul(x, matrix[0], _bias(bias, x), counts)
    offsets = _offsets(matrix)
    if offsets is None and len(matrix[1].shape) == 2:
        offsets = ops.zeros_like(matrix[1])  # with one scale per output the operator wants them; they are few
    return signatures.grouped_weight_quant_matmul(x, matrix[0], counts, matrix[1], offsets, _bias(bias, x))


def _bias(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.astype(signatures.bias_dtype(x.dtype))
