"""The definition of each operator, in plain MindSpore operators that run on any device.

Shapes: `tokens` is batch x seq flattened; a cache holds ``batch * num_key_value_heads * length`` rows of `head_dim`, so
that one scatter of contiguous rows updates it in place. Norms, softmax and routing are computed in float32 for
activations of any dtype, as in the references.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from msport.checkpoint.dtypes import Array
from msport.msmodels.ops.decoding import Matrix, arrange, decode, decode_rows, take
from msport.msmodels.ops.mixture import experts

# Every operator that layers call. A device's module may have its own forms.
__all__ = [
    "add_rms_norm",
    "arrange_gate_up",
    "attention",
    "attention_mask",
    "cache_slots",
    "clamped_swiglu",
    "embedding",
    "experts",
    "gated_gelu_tanh",
    "gated_silu",
    "linear",
    "rms_norm",
    "rotate_and_cache",
    "soft_cap",
    "softmax_top_k",
    "swiglu",
    "top_k_softmax",
]


def linear(x: Tensor, matrix: Matrix, bias: Tensor | None, encoding: str) -> Tensor:
    """``x [tokens, inputs]`` times a matrix ``[outputs, inputs]`` transposed, plus ``bias [outputs]``: ``[tokens,
    outputs]``.

    `matrix` holds the tensors of the `encoding`; "plain" is one tensor of any floating dtype.
    """
    if encoding == "plain":
        y = ops.MatMul(transpose_b=True)(x, matrix[0].astype(x.dtype))
    else:
        y = ops.MatMul(transpose_b=True)(arrange(x, matrix, encoding), decode(matrix, encoding, x.dtype))
    if bias is None:
        return y
    return ops.add(y, bias)


def embedding(ids: Tensor, matrix: Matrix, dtype: ms.Type, encoding: str) -> Tensor:
    """Rows of a matrix ``[vocab, hidden]``, as in `linear`, for ``ids [batch, seq]``: ``[batch * seq, hidden]`` in
    `dtype`.
    """
    rows = take(matrix, ids.reshape(-1), dtype)
    if encoding == "plain":
        return rows[0].astype(dtype)
    return decode_rows(rows, encoding, dtype)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """``x / sqrt(mean(x^2) + epsilon) * weight`` over the last axis, computed in float32."""
    wide = x.astype(ms.float32)
    scale = ops.rsqrt(ops.mean(ops.square(wide), -1, True) + epsilon)
    return (wide * scale * weight.astype(ms.float32)).astype(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """`rms_norm` of ``x + residual``, and that sum."""
    total = x + residual
    return rms_norm(total, weight, epsilon), total


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the two halves of the last axis of ``x [batch, seq, heads, head_dim]``.

    `cos` and `sin` are ``[batch, seq, 1, head_dim / 2]``, in float32.
    """
    first, second = ops.split(x.astype(ms.float32), x.shape[-1] // 2, -1)
    rotated = ops.concat((first * cos - second * sin, second * cos + first * sin), -1)
    return rotated.astype(x.dtype)


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
    """`apply_rotary` of query and key, and `update_cache` with the rotated key and the value.

    Returns the rotated query and both caches.
    """
    keys, values = update_cache(key_cache, value_cache, slots, apply_rotary(key, cos, sin), value)
    return apply_rotary(query, cos, sin), keys, values


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """``gate * sigmoid(gate) * up``."""
    return ops.silu(gate) * up


def gated_gelu_tanh(gate: Tensor, up: Tensor) -> Tensor:
    """GELU of `gate` in its tanh approximation, https://arxiv.org/abs/1606.08415 (PyTorch's
    ``gelu(approximate="tanh")``), times `up`.
    """
    return ops.gelu(gate, approximate="tanh") * up


def arrange_gate_up(array: Array, axis: int) -> Array:
    """An interleaved gate and up projection in the order for `clamped_swiglu`; called once, when weights are loaded.

    Here this is the checkpoint's order. A device with slow strided access puts all gates first along `axis`.
    """
    return array


def clamped_swiglu(x: Tensor, limit: float, alpha: float) -> Tensor:
    """gpt-oss's activation of ``x [rows, 2 * size]``, gate and up interleaved: ``[rows, size]``.

    ``gate * sigmoid(alpha * gate) * (up + 1)``; the gate is clamped from above, the up projection from both sides.
    """
    gate = ops.minimum(x[..., ::2], limit)
    up = ops.clamp(x[..., 1::2], -limit, limit)
    return gate * ops.sigmoid(gate * alpha) * (up + 1)


def swiglu(x: Tensor) -> Tensor:
    """`gated_silu` of ``x [rows, 2 * size]``, gate first: ``[rows, size]``."""
    gate, up = ops.split(x, x.shape[-1] // 2, -1)
    return gated_silu(gate, up)


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """``cap * tanh(x / cap)``.

    MindSpore's tanh on CPU is a rational approximation with errors up to 1e-4 above 1, but accurate near 0. So it is
    computed at an eighth of the argument and doubled three times: ``tanh(2y) = 2 tanh(y) / (1 + tanh(y)^2)``.
    """
    y = ops.tanh(x / (8 * cap))
    y = 2 * y / (1 + y * y)
    y = 2 * y / (1 + y * y)
    return 2 * cap * y / (1 + y * y)


def cache_slots(positions: Tensor, num_key_value_heads: int, length: int) -> Tensor:
    """Cache rows for ``positions [batch, seq]`` of every head, ``[batch * seq * num_key_value_heads]``.

    A cache is a ring buffer: position p is in slot ``p % length``. A cache as long as the context never wraps.
    """
    batch = positions.shape[0]
    heads = ops.arange(batch * num_key_value_heads).astype(ms.int32).reshape(batch, 1, num_key_value_heads)
    slots = ops.expand_dims(ops.floor_mod(positions, length), -1)
    return (heads * length + slots).reshape(-1)


def update_cache(
    key_cache: Parameter, value_cache: Parameter, slots: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Writes ``[batch, seq, num_key_value_heads, head_dim]`` at `slots` of both caches, in place; returns them."""
    keys = ops.scatter_update(key_cache, slots, key.reshape(-1, key.shape[-1]))
    values = ops.scatter_update(value_cache, slots, value.reshape(-1, value.shape[-1]))
    return keys, values


def visible_slots(positions: Tensor, length: int, window: int | None) -> Tensor:
    """Whether a query sees a slot, ``[batch, seq, length]``.

    `positions` are those of the queries, ``[batch, seq]``, which are already in the cache. The newest position
    determines the position in every slot of the ring. A query sees the `window` newest positions up to its own; None
    means all.
    """
    batch = positions.shape[0]
    newest = positions[:, -1:]
    slots = ops.arange(length).astype(ms.int32).reshape(1, length)
    held = newest - ops.floor_mod(newest - slots, length)
    held = held.reshape(batch, 1, length)
    queries = positions.reshape(batch, -1, 1)
    visible = ops.logical_and(held >= 0, held <= queries)
    if window is not None:
        visible = ops.logical_and(visible, held > queries - window)
    return visible


def attention_mask(positions: Tensor, length: int, window: int | None, dtype: ms.Type) -> Tensor:
    """`visible_slots` for `attention`: ``[batch, 1, 1, seq, length]``, 0 where a query sees a slot, else -inf."""
    visible = visible_slots(positions, length, window)
    mask = ops.select(visible, ops.zeros(visible.shape, dtype), ops.full(visible.shape, float("-inf"), dtype=dtype))
    return mask.reshape(positions.shape[0], 1, 1, -1, length)


def attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    scale: float,
    sinks: Tensor | None,
    softcap: float | None,
) -> Tensor:
    """Grouped-query attention of ``query [batch, seq, heads, head_dim]`` over the caches.

    Returns ``[batch * seq, heads * head_dim]``. `sinks` ``[heads]`` is one more logit per head, only in the softmax's
    denominator. `softcap` bounds the scores to ``softcap * tanh(score / softcap)`` before the mask.
    """
    batch, seq, heads, head_dim = query.shape
    length = mask.shape[-1]
    groups = keys.shape[0] // (batch * length)
    # The query heads of a group share a key head, so they are rows of one matrix product.
    grouped = (query * scale).transpose(0, 2, 1, 3).reshape(batch * groups, -1, head_dim)
    scores = ops.BatchMatMul(transpose_b=True)(grouped, keys.reshape(batch * groups, length, head_dim))
    if softcap is not None:
        scores = soft_cap(scores, softcap)
    scores = scores.reshape(batch, groups, heads // groups, seq, length) + mask
    probabilities = _softmax(scores.astype(ms.float32), sinks, groups).astype(query.dtype)
    probabilities = probabilities.reshape(batch * groups, -1, length)
    mixed = ops.BatchMatMul()(probabilities, values.reshape(batch * groups, length, head_dim))
    mixed = mixed.reshape(batch, heads, seq, head_dim)
    return mixed.transpose(0, 2, 1, 3).reshape(batch * seq, heads * head_dim)


def _softmax(scores: Tensor, sinks: Tensor | None, groups: int) -> Tensor:
    if sinks is None:
        return ops.softmax(scores, -1)
    sinks = sinks.astype(ms.float32).reshape(1, groups, -1, 1, 1)
    top = ops.maximum(ops.amax(scores, -1, True), sinks)
    exponentials = ops.exp(scores - top)
    return exponentials / (ops.sum(exponentials, -1, True) + ops.exp(sinks - top))


def top_k_softmax(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """A softmax over the `k` largest of ``logits [tokens, experts]``, and their indices, ``[tokens, k]`` both."""
    values, indices = ops.topk(logits.astype(ms.float32), k)
    return ops.softmax(values, -1), indices


def softmax_top_k(logits: Tensor, k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """The `k` largest of a softmax over ``logits [tokens, experts]``, and their indices, ``[tokens, k]`` both.

    With `normalize` they sum to 1. They are float32 for `logits` of any dtype.
    """
    shares, indices = ops.topk(ops.softmax(logits.astype(ms.float32), -1), k)
    if normalize:
        shares = shares / ops.sum(shares, -1, True)
    return shares, indices
