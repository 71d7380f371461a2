"""What the fused operators are documented to compute, in NumPy: one function for each of ``ascend.signatures``.

The tests put these in place of the operators and compare the code around them with ``ops.portable``; an NPU's owner
compares the operators themselves with these (``make ascend-acceptance``). Where documents leave something open, the
function here chooses what would show code that relies on it: rows of an expert in another order, NaN where nothing is
promised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.int64]]

_MINDSPORE = "https://www.mindspore.cn/docs/en/r2.10.0/api_python/ops/mindspore.ops"
_CANN = "https://www.hiascend.com/document/detail/zh/CANNCommunityEdition/83RC1alpha003/API/aolapi/context"


@dataclass(frozen=True, slots=True)
class Contract:
    """One operator: where its meaning is documented, what is promised there, and what only hardware can confirm."""

    function: str
    operator: str
    source: str
    promised: str
    open_question: str


CONTRACTS = (
    Contract(
        "rms_norm",
        "RmsNorm",
        f"{_MINDSPORE}.rms_norm.html",
        "x / sqrt(mean(x^2) + epsilon) * gamma over the last axis; x and gamma of one dtype",
        "whether bfloat16 rounds once, after the weight, or also before it",
    ),
    Contract(
        "add_rms_norm",
        "AddRmsNorm",
        f"{_MINDSPORE}.add_rms_norm.html",
        "RmsNorm of x1 + x2, and that sum as third result",
        "whether the norm sees the sum before or after it is rounded to bfloat16",
    ),
    Contract(
        "rotary",
        "RotaryPositionEmbedding",
        f"{_MINDSPORE}.rotary_position_embedding.html",
        "mode 0: x * cos + rotate_half(x) * sin; x in the order batch, seq, heads with cos [batch, seq, 1, head_dim];"
        " cos in [-1, 1]",
        "cos above 1, as YaRN scales it (1.35 for gpt-oss); announced to be removed after MindSpore 2.9",
    ),
    Contract(
        "index_copy",
        "InplaceIndexCopy",
        f"{_CANN}/aclnnInplaceIndexCopy.md",
        "dim 0: row index[i] of the target becomes row i of the source, in place; other rows stay",
        "that a graph reads the parameter only after it is written; int32 indices",
    ),
    Contract(
        "flash_attention",
        "FlashAttentionScore",
        f"{_MINDSPORE}.flash_attention_score.html",
        "softmax(scale * q k + mask) v, BNSD with fewer key heads, a boolean mask [batch, 1, seq, length] that is true"
        " where a key is discarded, sparse mode 0; maximum and sum of the softmax, eight times each",
        "that maximum and sum are those after scale and mask, and finite where most of a row is masked",
    ),
    Contract(
        "incremental_attention",
        "FusedInferAttentionScore",
        f"{_MINDSPORE}.fused_infer_attention_score.html",
        "the same for one query token, with the mask as [batch, 1, 1, length]; softmax_lse is max + log(sum), float32",
        "softmax_lse at one query token together with a mask",
    ),
    Contract(
        "init_routing",
        "MoeInitRoutingV2",
        "https://github.com/mindspore-ai/mindspore, mindspore/python/mindspore/ops/function/other_func.py",
        "drop_pad_mode 0, active_num 0: every token's row k times, sorted by expert; element t * k + j of"
        " expanded_row_idx is the row of token t for its j-th expert; flag 2: how many rows each expert has",
        "the order of one expert's rows (not relied on); experts without rows count 0",
    ),
    Contract(
        "grouped_matmul",
        "GroupedMatmulV4",
        f"{_CANN}/aclnnGroupedMatmulV4.md",
        "split_item 3, group_type 0, group_list_type 1: rows of group i times weight[i] plus bias[i]; bias float32"
        " where x is bfloat16",
        "experts without rows: MindSpore's text asks for positive group sizes; that no other weights are read",
    ),
    Contract(
        "grouped_weight_quant_matmul",
        "GroupedMatmulV4",
        f"{_CANN}/aclnnGroupedMatmulV4.md",
        "as grouped_matmul, of (weight[i] + antiquant_offset[i]) * antiquant_scale[i], both in the dtype of x: int8"
        " with one scale and offset for each expert's output, [E, N]; int4 with an even N, two of them in a byte, the"
        " even one in its low half: symmetric with [E, N] or [E, G, N], or with offsets [E, N]",
        "int4 without antiquant_offset: CANN 8.3 takes it as symmetric, CANN 8.1 and MindSpore's text ask for both;"
        " whether (weight + offset) * scale is rounded once",
    ),
    Contract(
        "weight_quant_matmul",
        "WeightQuantBatchMatmul",
        f"{_CANN}/aclnnWeightQuantBatchMatmulV2.md",
        "x (weight + antiquant_offset) * antiquant_scale; weight [K, N], of int4 with an even N, two of them in a byte,"
        " the even one in its low half; scale and offset [N], or [K / group, N] for a group that is a multiple of 32"
        " below K, in the dtype of x; K and N at most 65535",
        "whether (weight + offset) * scale is rounded once; not deterministic by default, so two runs may differ",
    ),
    Contract(
        "token_unpermute",
        "MoeTokenUnpermute",
        f"{_MINDSPORE}.moe_token_unpermute.html",
        "token t is the sum over j of probs[t, j] * permuted_tokens[sorted_indices[t * k + j]]",
        "the dtype it sums in",
    ),
    Contract(
        "gating_top_k_softmax",
        "MoeGatingTopKSoftmax",
        f"{_CANN}/aclnnMoeGatingTopKSoftmax.md",
        "the k largest of softmax(x) and their indices, for float32",
        "which of equal values is taken",
    ),
    Contract(
        "swiglu",
        "Swiglu",
        f"{_MINDSPORE}.swiglu.html",
        "silu of the first half of the last axis times the second half",
        "nothing beyond rounding",
    ),
)


def rms_norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight)


def add_rms_norm(x: Floats, residual: Floats, weight: Floats, epsilon: float) -> tuple[Floats, Floats]:
    return rms_norm(x + residual, weight, epsilon), x + residual


def rotary(x: Floats, cos: Floats, sin: Floats) -> Floats:
    half = x.shape[-1] // 2
    return np.asarray(x * cos + np.concatenate((-x[..., half:], x[..., :half]), -1) * sin)


def index_copy(target: Floats, rows: Integers, values: Floats) -> Floats:
    target[rows] = values
    return target


def flash_attention(
    query: Floats, keys: Floats, values: Floats, mask: Any, heads: int, scale: float
) -> tuple[Floats, Floats, Floats]:
    batch, _, seq, _ = query.shape
    length = keys.shape[2]
    if mask.shape != (batch, 1, seq, length):
        raise ValueError(f"attn_mask is {mask.shape}; sparse mode 0 takes ({batch}, 1, {seq}, {length})")
    repeats = heads // keys.shape[1]
    scores = query @ np.repeat(keys, repeats, 1).swapaxes(-1, -2) * scale
    scores = np.where(mask, -np.inf, scores)
    top = scores.max(-1, keepdims=True)
    exponentials = np.exp(scores - top)
    total = exponentials.sum(-1, keepdims=True)
    attended = exponentials / total @ np.repeat(values, repeats, 1)
    return attended, np.repeat(top, 8, -1), np.repeat(total, 8, -1)


def incremental_attention(
    query: Floats, keys: Floats, values: Floats, mask: Any, heads: int, key_value_heads: int, scale: float
) -> tuple[Floats, Floats]:
    if query.shape[2] != 1 or keys.shape[1] != key_value_heads:
        raise ValueError(f"query {query.shape}, key {keys.shape}: not one token, or not {key_value_heads} key heads")
    attended, top, total = flash_attention(query, keys, values, mask, heads, scale)
    return attended, top[..., :1] + np.log(total[..., :1])


def init_routing(x: Floats, indices: Integers, experts: int) -> tuple[Floats, Integers, Integers]:
    flat = indices.reshape(-1)
    # Sorted by expert; of one expert's rows the last comes first, which no one may rely on.
    order = np.lexsort((-np.arange(flat.size), flat))
    destinations = np.empty(flat.size, np.int64)
    destinations[order] = np.arange(flat.size)
    return x[order // indices.shape[1]], destinations, np.bincount(flat, minlength=experts)


def grouped_matmul(x: Floats, weight: Floats, bias: Floats | None, counts: Integers) -> Floats:
    y = np.full((x.shape[0], weight.shape[2]), np.nan)
    ends = np.cumsum(counts)
    for expert, (begin, end) in enumerate(zip(ends - counts, ends, strict=True)):
        y[begin:end] = x[begin:end] @ weight[expert] + (0 if bias is None else bias[expert])
    return y


def grouped_weight_quant_matmul(
    x: Floats, weight: Integers, counts: Integers, scales: Floats, offsets: Floats | None, bias: Floats | None
) -> Floats:
    grouped = scales.ndim == 3
    if grouped and (weight.dtype != np.uint8 or offsets is not None):
        raise ValueError("scales per group are documented for int4 without offsets")
    if weight.dtype == np.int8 and offsets is None:
        raise ValueError("int8 needs antiquant_offset")
    return grouped_matmul(x, _antiquantised(weight, scales, offsets, x.shape[-1]), bias, counts)


def weight_quant_matmul(x: Floats, weight: Integers, scales: Floats, offsets: Floats | None) -> Floats:
    return np.asarray(x @ _antiquantised(weight, scales, offsets, x.shape[-1]))


def _antiquantised(weight: Integers, scales: Floats, offsets: Floats | None, inputs: int) -> Floats:
    """``(weight + offset) * scale``: int8 codes, or bytes with two int4."""
    codes = _unpaired(weight) if weight.dtype == np.uint8 else np.asarray(weight)
    if codes.shape[-2] != inputs or (weight.ndim == scales.ndim and inputs % (32 * scales.shape[-2])):
        raise ValueError(f"weight {codes.shape} and antiquant_scale {scales.shape} do not fit {inputs} inputs")
    if offsets is not None and offsets.shape != scales.shape:
        raise ValueError(f"antiquant_offset is {offsets.shape}, antiquant_scale {scales.shape}")
    groups = scales if weight.ndim == scales.ndim else scales[..., None, :]
    shifts = np.zeros_like(groups) if offsets is None else offsets.reshape(groups.shape)
    repeats = inputs // groups.shape[-2]
    return np.asarray((codes + np.repeat(shifts, repeats, -2)) * np.repeat(groups, repeats, -2))


def _unpaired(weight: Integers) -> Integers:
    """The int4 of bytes ``[..., n / 2]``: ``[..., n]``."""
    halves = np.stack((weight & 15, weight >> 4), -1).astype(np.int64)
    return (halves - 16 * (halves > 7)).reshape(*weight.shape[:-1], -1)


def token_unpermute(rows: Floats, destinations: Integers, shares: Floats) -> Floats:
    tokens, k = shares.shape
    routed: Floats = rows[destinations].reshape(tokens, k, -1)
    return np.asarray((routed * shares[..., None]).sum(1))


def gating_top_k_softmax(logits: Floats, k: int) -> tuple[Floats, Integers]:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    shares = exponentials / exponentials.sum(-1, keepdims=True)
    indices = np.argsort(-shares, -1, kind="stable")[:, :k]
    return np.take_along_axis(shares, indices, -1), indices


def swiglu(x: Floats) -> Floats:
    gate, up = np.split(x, 2, -1)
    return np.asarray(gate / (1 + np.exp(-gate)) * up)
