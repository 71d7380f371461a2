"""Feed-forward layers: a dense one, and a mixture of experts with a softmax router."""

from __future__ import annotations

from mindspore import Tensor, nn

from msport.architectures import ModelConfig, SparseConfig
from msport.msmodels import ops
from msport.msmodels.layers.activations import ACTIVATIONS, SwiGLU
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.linear import Linear
from msport.msmodels.layers.matrices import MatrixCell
from msport.msmodels.ops.decoding import Matrix


class GatedMLP(nn.Cell):
    """``down_proj(activation(gate_proj(x), up_proj(x)))`` of ``x [tokens, hidden_size]``."""

    def __init__(self, config: ModelConfig, cache: CacheShape) -> None:
        super().__init__()
        hidden, intermediate, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(hidden, intermediate, bias=bias, dtype=cache.dtype)
        self.up_proj = Linear(hidden, intermediate, bias=bias, dtype=cache.dtype)
        self.down_proj = Linear(intermediate, hidden, bias=bias, dtype=cache.dtype)
        self.activation = ACTIVATIONS[config.activation]

    def construct(self, x: Tensor) -> Tensor:
        return self.down_proj(self.activation(self.gate_proj(x), self.up_proj(x)))


class Experts(MatrixCell):
    """Stacked SwiGLU experts without biases; the gate comes first in `gate_up_proj`."""

    gate_up_proj: Matrix
    down_proj: Matrix
    gate_up_proj_encoding: str
    down_proj_encoding: str

    def __init__(self, config: SparseConfig, cache: CacheShape) -> None:
        super().__init__()
        experts, hidden, intermediate = config.num_local_experts, config.hidden_size, config.moe_intermediate_size
        self.add_matrix("gate_up_proj", experts, 2 * intermediate, hidden, dtype=cache.dtype)
        self.add_matrix("down_proj", experts, hidden, intermediate, dtype=cache.dtype)
        self.activation = SwiGLU()

    def construct(self, x: Tensor, indices: Tensor, routing: Tensor) -> Tensor:
        encodings = (self.gate_up_proj_encoding, self.down_proj_encoding)
        return ops.experts(
            x, indices, routing, self.gate_up_proj, None, self.down_proj, None, self.activation, encodings
        )


class SparseMoE(nn.Cell):
    """Runs ``x [tokens, hidden_size]`` through the `experts_per_tok` experts with the largest weights of the router
    `gate`.

    The weights come from a softmax over all experts; with `normalize`, those of the chosen experts sum to 1.
    """

    def __init__(self, config: SparseConfig, cache: CacheShape) -> None:
        super().__init__()
        self.experts_per_tok = config.num_experts_per_tok
        self.normalize = config.norm_topk_prob
        self.gate = Linear(config.hidden_size, config.num_local_experts, bias=False, dtype=cache.dtype)
        self.experts = Experts(config, cache)

    def construct(self, x: Tensor) -> Tensor:
        routing, indices = ops.softmax_top_k(self.gate(x), self.experts_per_tok, self.normalize)
        return self.experts(x, indices, routing)
