"""Activations of gate and up projections: functions of the two, and cells that halve the last axis of both."""

from __future__ import annotations

from mindspore import Tensor, nn

from msport.msmodels import ops


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """``gate * sigmoid(gate) * up``."""
    return ops.gated_silu(gate, up)


def gated_gelu_tanh(gate: Tensor, up: Tensor) -> Tensor:
    """GELU of the gate in its tanh approximation, times `up`."""
    return ops.gated_gelu_tanh(gate, up)


# By the name that a config gives to the function of the gate.
ACTIVATIONS = {"gelu_tanh": gated_gelu_tanh, "silu": gated_silu}


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
