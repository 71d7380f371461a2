"""How a router's logits become experts and their shares."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor
from mindspore import ops as msops


def softmax_top_k(logits: Tensor, k: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """The `k` largest of a softmax over ``logits [tokens, experts]``, and their indices, ``[tokens, k]`` both.

    With `normalize` they sum to 1. They are float32 whatever the dtype of `logits`.
    """
    shares, indices = msops.topk(msops.softmax(logits.astype(ms.float32), -1), k)
    if normalize:
        shares = shares / msops.sum(shares, -1, True)
    return shares, indices
