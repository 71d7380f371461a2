"""MindSpore's Ascend operators with one signature each. Only this module depends on MindSpore's own signatures.

The functions of ``mindspore.ops`` change: after 2.9, `rms_norm` is to get another signature and result, and
`rotary_position_embedding` is to be removed. The primitives below them remain for saved graphs, so they are called
here, with every argument. The signatures come from the wheel of 2.10, which msport requires. The published documents of
2.7 to 2.11 differ only in such announcements (compared for rms_norm and fused_infer_attention_score).

``tests/acceptance/contracts.py`` states in NumPy what each operator is documented to compute.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Parameter, Tensor
from mindspore.ops import auto_generate as primitives

# All tokens before and after; only the mask decides.
_ALL_TOKENS = 2147483647
# Values of MoeInitRoutingV2 and GroupedMatmulV4.
_DROPLESS, _NO_CAPACITY, _COUNT_TOKENS = 0, 0, 2
_SINGLE_TENSOR, _GROUPS_ALONG_ROWS, _GROUP_SIZES = 3, 0, 1

# To be removed after 2.9, but still in 2.10. Without it, `rotary` uses plain operators.
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
    """InplaceIndexCopy: writes ``values [n, size]`` to ``rows [n]`` of ``target [all, size]``, in place.

    Of the operators that write rows of a parameter, only this one has a kernel that graph mode selects by default.
    ReshapeAndCache has one only with ``infer_boost``, which replaces FlashAttentionScore by a kernel without
    softmax_max and softmax_sum.
    """
    return primitives.InplaceIndexCopy()(target, 0, rows, values)


def flash_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """FlashAttentionScore, all tensors ``[batch, heads, seq, head_dim]``; the mask is true for slots that are not seen.

    Returns the attention, and the softmax's maximum and sum, float32 ``[batch, heads, seq, 8]``, each repeated eight
    times.
    """
    operator = primitives.FlashAttentionScore(heads, 1.0, scale, _ALL_TOKENS, _ALL_TOKENS, 0, "BNSD", 0)
    top, total, _, attended = operator(query, keys, values, None, None, None, mask, None, None, None)
    return attended, top, total


def incremental_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, heads: int, key_value_heads: int, scale: float
) -> tuple[Tensor, Tensor]:
    """FusedInferAttentionScore for one query token per sequence, ``[batch, heads, 1, head_dim]``.

    Returns the attention, and the logarithm of the softmax's denominator, float32 ``[batch, heads, 1, 1]``.
    """
    operator = primitives.FusedInferAttentionScore(
        heads, scale, _ALL_TOKENS, _ALL_TOKENS, "BNSD", key_value_heads, 0, 0, 0, 0, True
    )
    attended, lse = operator(query, (keys,), (values,), None, mask)
    return attended, lse


def init_routing(x: Tensor, indices: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """MoeInitRoutingV2 without dropping: the rows sorted by expert, the new place of each row, the rows per expert.

    ``x [tokens, hidden]`` and ``indices [tokens, k]`` int32 give ``[tokens * k, hidden]``, ``[tokens * k]`` and
    ``[experts]``; element ``t * k + j`` of the second is the row of token t for its j-th expert.
    """
    rows, destinations, counts, _ = primitives.MoeInitRoutingV2()(
        x, indices, 0, _NO_CAPACITY, experts, _DROPLESS, _COUNT_TOKENS, False
    )
    return rows, destinations, counts


def grouped_matmul(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Tensor) -> Tensor:
    """GroupedMatmulV4: the first ``counts[0]`` rows of `x` times ``weight[0]``, the next ``counts[1]`` times the next.

    ``x [rows, in]``, ``weight [experts, in, out]``, ``bias [experts, out]`` in `bias_dtype`.
    """
    return _grouped(x, weight, bias, counts, None, None)


def grouped_weight_quant_matmul(
    x: Tensor, weight: Tensor, counts: Tensor, scales: Tensor, offsets: Tensor | None, bias: Tensor | None
) -> Tensor:
    """`grouped_matmul` with ``(weight + offset) * scale``, of ``weight [experts, in, out]`` in int8 or qint4x2.

    qint4x2 holds two outputs in a byte: ``[experts, in, out / 2]``. Scales and offsets are ``[experts, out]`` or, for
    int4, ``[experts, groups, out]``; they have the dtype of `x`. int4 without offsets is symmetric; int8 needs them.
    """
    return _grouped(x, weight, bias, counts, (scales,), None if offsets is None else (offsets,))


def _grouped(x: Tensor, weight: Tensor, bias: Tensor | None, counts: Tensor, scales: Any, offsets: Any) -> Tensor:
    return primitives.GroupedMatmulV4()(
        (x,),
        (weight,),
        None if bias is None else (bias,),
        None,
        None,
        scales,
        offsets,
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


def weight_quant_matmul(x: Tensor, weight: Tensor, scales: Tensor, offsets: Tensor | None) -> Tensor:
    """WeightQuantBatchMatmul: ``x [rows, in]`` times ``(weight + offset) * scale`` of int8 or qint4x2.

    ``weight [in, out]``, of qint4x2 with two outputs in a byte: ``[in, out / 2]``. Scales and offsets are ``[out]`` or
    ``[groups, out]`` and have the dtype of `x`. The operator's bias cannot be used with bfloat16: MindSpore's inference
    accepts no other dtype than that of `x`, and CANN only float32.
    """
    group = x.shape[-1] // scales.shape[0] if len(scales.shape) == 2 else 0
    return primitives.WeightQuantBatchMatmul(False, False, group)(x, weight, scales, offsets, None, None, None)


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


def bias_dtype(dtype: ms.Type) -> ms.Type:
    """The dtype of the bias of grouped matrix products, for activations in `dtype`."""
    return ms.float32 if dtype == ms.bfloat16 else dtype
