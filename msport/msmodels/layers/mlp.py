"""Feed-forward layers: the dense one, and a mixture of experts behind a softmax router."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, nn

from msport.msmodels import ops
from msport.msmodels.layers.activations import SwiGLU
from msport.msmodels.layers.linear import Linear
from msport.msmodels.layers.parameters import weight


class GatedMLP(nn.Cell):
    """``down_proj(activation(gate_proj(x)) * up_proj(x))`` of ``x [tokens, hidden_size]``."""

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        activation: Callable[[Tensor], Tensor],
        *,
        bias: bool = False,
        dtype: ms.Type,
    ) -> None:
        super().__init__()
        self.gate_proj = Linear(hidden_size, intermediate_size, bias=bias, dtype=dtype)
        self.up_proj = Linear(hidden_size, intermediate_size, bias=bias, dtype=dtype)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=bias, dtype=dtype)
        self.activation = activation

    def construct(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Cell):
    """SwiGLU experts without biases, stacked; in `gate_up_proj` the gate comes first."""

    def __init__(self, experts: int, hidden_size: int, intermediate_size: int, *, dtype: ms.Type) -> None:
        super().__init__()
        self.gate_up_proj = weight(experts, hidden_size, 2 * intermediate_size, dtype=dtype)
        self.down_proj = weight(experts, intermediate_size, hidden_size, dtype=dtype)
        self.activation = SwiGLU()

    def construct(self, x: Tensor, indices: Tensor, routing: Tensor) -> Tensor:
        return ops.experts(x, indices, routing, self.gate_up_proj, None, self.down_proj, None, self.activation)


class SparseMoE(nn.Cell):
    """``x [tokens, hidden_size]`` through the `experts_per_tok` experts that the router `gate` likes best.

    Their shares are those of a softmax over all experts; with `normalize` they sum to 1.
    """

    def __init__(
        self,
        experts: int,
        experts_per_tok: int,
        hidden_size: int,
        intermediate_size: int,
        *,
        normalize: bool,
        dtype: ms.Type,
    ) -> None:
        super().__init__()
        self.experts_per_tok = experts_per_tok
        self.normalize = normalize
        self.gate = Linear(hidden_size, experts, bias=False, dtype=dtype)
        self.experts = Experts(experts, hidden_size, intermediate_size, dtype=dtype)

    def construct(self, x: Tensor) -> Tensor:
        routing, indices = ops.softmax_top_k(self.gate(x), self.experts_per_tok, self.normalize)
        return self.experts(x, indices, routing)
