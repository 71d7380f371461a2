"""Attention by FlashAttentionScore (a chunk of a prompt) and FusedInferAttentionScore (one token).

Windows. Both operators get an explicit mask. Sparse mode 4 needs no mask, but it counts its band from the last key. So
it is correct only if the keys are in order of position and all of them exist. After the first chunk, the ring has
wrapped; in the first chunk, the slots for positions before 0 are empty, and a band cannot exclude them. A ring is only
as long as window and chunk, so sparse mode would save little.

Sinks. Neither operator has them, but both return the softmax's denominator, and one more logit in a softmax scales all
others by the same factor: ``softmax with sink = softmax * exp(lse) / (exp(lse) + exp(sink)) = softmax * sigmoid(lse -
sink)``.

Soft-caps. Neither operator can bound scores before the mask, so Gemma2's attention is composed as in ``ops.portable``.
The same holds for other dtypes and for head sizes that are no multiple of 16.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from msport.msmodels.ops import portable
from msport.msmodels.ops.ascend import signatures

# Neither operator has float32.
HALF_DTYPES = (ms.float16, ms.bfloat16)
# Limits of both operators.
_HEAD_DIM_MULTIPLE, _MAX_HEAD_DIM, _MAX_HEADS_PER_GROUP = 16, 512, 64


def attention_mask(positions: Tensor, length: int, window: int | None, dtype: ms.Type) -> Tensor:
    """The mask for `attention`: ``[batch, 1, seq, length]``, true if a query does **not** see a slot."""
    if dtype not in HALF_DTYPES:
        return portable.attention_mask(positions, length, window, dtype)
    return ops.expand_dims(ops.logical_not(portable.visible_slots(positions, length, window)), 1)


def attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    scale: float,
    sinks: Tensor | None,
    softcap: float | None,
) -> Tensor:
    """As ``portable.attention``."""
    batch, seq, heads, head_dim = query.shape
    length = mask.shape[-1]
    if query.dtype not in HALF_DTYPES:
        return portable.attention(query, keys, values, mask, scale, sinks, softcap)
    groups = keys.shape[0] // (batch * length)
    if softcap is not None or not is_fused(head_dim, heads // groups):
        return portable.attention(query, keys, values, _additive(mask, query.dtype), scale, sinks, softcap)
    shape = (batch, groups, length, head_dim)
    keys, values = keys.reshape(shape), values.reshape(shape)
    # With one token, the orders (batch, seq, heads) and (batch, heads, seq) are the same.
    heads_first = query.reshape(batch, heads, 1, head_dim) if seq == 1 else query.transpose(0, 2, 1, 3)
    if seq == 1:
        attended, lse = signatures.incremental_attention(heads_first, keys, values, mask, heads, groups, scale)
    else:
        attended, top, total = signatures.flash_attention(heads_first, keys, values, mask, heads, scale)
        lse = top[..., :1] + ops.log(total[..., :1])
    if sinks is not None:
        share = ops.sigmoid(lse - sinks.astype(ms.float32).reshape(1, heads, 1, 1))
        attended = (attended.astype(ms.float32) * share).astype(query.dtype)
    if seq > 1:
        attended = attended.transpose(0, 2, 1, 3)
    return attended.reshape(batch * seq, heads * head_dim)


def is_fused(head_dim: int, heads_per_group: int) -> bool:
    """Whether the fused operators accept this head size and this number of heads per key head."""
    return head_dim % _HEAD_DIM_MULTIPLE == 0 and head_dim <= _MAX_HEAD_DIM and heads_per_group <= _MAX_HEADS_PER_GROUP


def _additive(mask: Tensor, dtype: ms.Type) -> Tensor:
    """The additive mask of ``portable.attention``: ``[batch, 1, 1, seq, length]``."""
    zeros = ops.zeros(mask.shape, dtype)
    hidden = ops.full(mask.shape, float("-inf"), dtype=dtype)
    return ops.expand_dims(ops.select(mask, hidden, zeros), 1)
