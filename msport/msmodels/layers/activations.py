"""Activations: plain functions, and gated ones that halve the last axis."""

from __future__ import annotations

from mindspore import Tensor, nn

from msport.msmodels import ops


def silu(x: Tensor) -> Tensor:
    """``x * sigmoid(x)``."""
    return ops.silu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU in its tanh approximation."""
    return ops.gelu_tanh(x)


# By the name that a config gives.
ACTIVATIONS = {"gelu_tanh": gelu_tanh, "silu": silu}


class ClampedSwiGLU(nn.Cell):
    """gpt-oss: gate and up interleaved, both clamped, ``gate * sigmoid(alpha * gate) * (up + 1)``."""

    def __init__(self, limit: float, alpha: float) -> None:
        super().__init__()
        self.limit = limit
        self.alpha = alpha

    def construct(self, x: Tensor) -> Tensor:
        return ops.clamped_swiglu(x, self.limit, self.alpha)


class SwiGLU(nn.Cell):
    """Gate first, up second: ``silu(gate) * up``."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.swiglu(x)
