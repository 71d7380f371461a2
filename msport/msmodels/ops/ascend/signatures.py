"""MindSpore's Ascend operators under one signature each: the one place that knows how MindSpore calls them.

The functions of ``mindspore.ops`` change: `rms_norm` is announced to get another signature and result after 2.9, and
`rotary_position_embedding` to go. The primitives below them stay for the sake of saved graphs, so those are called,
with every argument stated. Read from the wheel of 2.10, which msport requires; the published documents of 2.7 to 2.11
differ in announcements only where they were compared (rms_norm, fused_infer_attention_score).

What each operator promises is written down as NumPy in ``tests/acceptance/contracts.py``.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor
from mindspore.ops import auto_generate as primitives

# Everything before and after: the mask alone decides.
_ALL_TOKENS = 2147483647
# Values of MoeInitRoutingV2 and GroupedMatmulV4.
_DROPLESS, _NO_CAPACITY, _COUNT_TOKENS = 0, 0, 2
_SINGLE_TENSOR, _GROUPS_ALONG_ROWS, _GROUP_SIZES = 3, 0, 1

# Announced to be removed after 2.9, and still in 2.10: `rotary` falls back on its own meaning where it is gone.
HAS_ROTARY = hasattr(primitives, "RotaryPositionEmbedding")


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RmsNorm over the last axis; `weight` has the dtype of `x`."""
    return primitives.RmsNorm(epsilon)(x, weight)[0]


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """AddRmsNorm: the normalised sum, and the sum."""
    normalised, _, total = primitives.AddRmsNorm()(x, residual, weight, epsilon)
    return normalised, total


def rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """RotaryPositionEmbedding by halves: `x` ``[batch, seq, heads, head_dim]``, cos ``[batch, seq, 1, head_dim]``."""
    return primitives.RotaryPositionEmbedding()(x, cos, sin, 0)


def index_copy(target: Parameter, rows: Tensor, values: Tensor) -> Tensor:
    """InplaceIndexCopy: writes ``values [n, size]`` to the `rows` ``[n]`` of ``target [all, size]``, in place.

    Of the operators that write rows of a parameter it is the one with a kernel that graph mode selects by itself:
    ReshapeAndCache has one only under ``infer_boost``, which exchanges FlashAttentionScore for a kernel without
    softmax_max and softmax_sum.
    """
    return primitives.InplaceIndexCopy()(target, 0, rows, values)


def flash_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """FlashAttentionScore, all tensors ``[batch, heads, seq, head_dim]``; the mask is true where nothing is seen.

    Returns the attention and, ``[batch, heads, seq, 8]`` in float32, the softmax's maximum and sum, eight times each.
    """
    operator = primitives.FlashAttentionScore(heads, 1.0, scale, _ALL_TOKENS, _ALL_TOKENS, 0, "BNSD", 0)
    top, total, _, attended = operator(query, keys, values, None, None, None, mask, None, None, None)
    return attended, top, total


def incremental_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int, key_value_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """FusedInferAttentionScore of one query token a sequence, ``[batch, heads, 1, head_dim]``.

    Returns the attention and, ``[batch, heads, 1, 1]`` in float32, the logarithm of the softmax's denominator.
    """
    operator = primitives.FusedInferAttentionScore(
        heads, scale, _ALL_TOKENS, _ALL_TOKENS, "BNSD", key_value_heads, 0, 0, 0, 0, True
    )
    attended, lse = operator(query, (keys,), (values,), None, mask)
    return attended, lse


def init_routing(x: Tensor, indices: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """MoeInitRoutingV2 without dropping: rows sorted by expert, where each row went, how many rows each expert has.

    ``x [tokens, hidden]`` and ``indices [tokens, k]`` int32 give ``[tokens * k, hidden]``, ``[tokens * k]`` and
    ``[experts]``; element ``t * k + j`` of the second is the row of token t for its j-th expert.
    """
    rows, destinations, counts, _ = primitives.MoeInitRoutingV2()(
        x, indices, 0, _NO_CAPACITY, experts, _DROPLESS, _COUNT_TOKENS, False
    )
    return rows, destinations, counts


def grouped_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Tensor) -> Tensor:
    """GroupedMatmulV4: the first ``counts[0]`` rows of `x` times ``weight[0]``, the next ``counts[1]`` times the next.

    ``x [rows, in]``, ``weight [experts, in, out]``, ``bias [experts, out]``: float32 where `x` is bfloat16, else its
    dtype; ``counts [experts]`` int64.
    """
    return primitives.GroupedMatmulV4()(
        (x,),
        (weight,),
        None if bias is None else (bias,),
        None,
        None,
        None,
        None,
        None,
        counts,
        None,
        None,
        None,
        _SINGLE_TENSOR,
        _GROUPS_ALONG_ROWS,
        _GROUP_SIZES,
        0,
        None,
    )[0]


def token_unpermute(rows: Tensor, destinations: Tensor, shares: Tensor) -> Tensor:
    """MoeTokenUnpermute: each token's rows, weighted by ``shares [tokens, k]`` and summed: ``[tokens, hidden]``."""
    return primitives.MoeTokenUnpermute()(rows, destinations, shares, False, None)


def gating_top_k_softmax(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """MoeGatingTopKSoftmax: the `k` largest of each row's softmax, and their indices in int32."""
    shares, indices, _ = primitives.MoeGatingTopKSoftmax()(logits, None, k)
    return shares, indices


def swiglu(x: Tensor) -> Tensor:
    """Swiglu of the two halves of the last axis, the gate first."""
    return primitives.Swiglu()(x, -1)


def grouped_bias_dtype(dtype: ms.Type) -> ms.Type:
    """The dtype that `grouped_matmul` takes its bias in."""
    return ms.float32 if dtype == ms.bfloat16 else dtype
