"""Gated activations: Swiglu, and gpt-oss's, which is composed of plain operators."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, ops

from msport.checkpoint.dtypes import Array
from msport.msmodels.ops.ascend import signatures


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
    """As ``portable.clamped_swiglu``, for ``x [..., 2 * size]`` arranged by `arrange_gate_up`."""
    gate, up = ops.split(x, x.shape[-1] // 2, -1)
    gate = ops.minimum(gate, limit)
    return gate * ops.sigmoid(gate * alpha) * (ops.clamp(up, -limit, limit) + 1)
