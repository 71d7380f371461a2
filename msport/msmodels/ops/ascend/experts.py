"""Mixture of experts by MoeInitRoutingV2, GroupedMatmulV4 and MoeTokenUnpermute."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, ops

from msport.msmodels.ops.ascend import signatures


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
    gate_up: Tensor,
    gate_up_bias: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """As ``portable.experts``: tokens sorted by expert, each expert's weights read once and only if it has tokens."""
    rows, destinations, counts = signatures.init_routing(x, indices.astype(ms.int32), gate_up.shape[0])
    counts = counts.astype(ms.int64)
    projected = signatures.grouped_matmul(rows, gate_up, _bias(gate_up_bias, x), counts)
    y = signatures.grouped_matmul(activation(projected), down, _bias(down_bias, x), counts)
    # The routing weights are rounded to the dtype of the activations, as in the reference implementations.
    return signatures.token_unpermute(y, destinations, weights.astype(x.dtype))


def _bias(bias: Tensor | None, x: Tensor) -> Tensor | None:
    return None if bias is None else bias.astype(signatures.grouped_bias_dtype(x.dtype))
