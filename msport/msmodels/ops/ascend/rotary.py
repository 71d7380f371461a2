"""Rotary position embedding by RotaryPositionEmbedding."""

from __future__ import annotations

from mindspore import Tensor, ops

from msport.msmodels.ops import portable
from msport.msmodels.ops.ascend import signatures


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
