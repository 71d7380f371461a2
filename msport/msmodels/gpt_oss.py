"""gpt-oss (20b, 120b) for MindSpore's graph mode.

Source: https://github.com/openai/gpt-oss and ``transformers/models/gpt_oss/modeling_gpt_oss.py``.
"""

from __future__ import annotations

from mindspore import Tensor, nn

from msport.architectures.gpt_oss import GptOssConfig
from msport.msmodels import ops
from msport.msmodels.layers.activations import ClampedSwiGLU
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.linear import Linear
from msport.msmodels.layers.matrices import MatrixCell
from msport.msmodels.layers.parameters import weight
from msport.msmodels.ops.decoding import Matrix


def build(config: GptOssConfig, cache: CacheShape) -> CausalLM:
    return CausalLM(config, cache, lambda index: GptOssDecoderLayer(config, cache, index))


class GptOssDecoderLayer(PreNormLayer):
    def __init__(self, config: GptOssConfig, cache: CacheShape, index: int) -> None:
        super().__init__(config, cache, index)
        self.mlp = GptOssMLP(config, cache)


class GptOssExperts(MatrixCell):
    """The weights of all experts; gate and up are interleaved in `gate_up_proj`."""

    gate_up_proj: Matrix
    down_proj: Matrix
    gate_up_proj_encoding: str
    down_proj_encoding: str

    def __init__(self, config: GptOssConfig, cache: CacheShape) -> None:
        super().__init__()
        experts, hidden, intermediate = config.num_local_experts, config.hidden_size, config.intermediate_size
        self.add_matrix("gate_up_proj", experts, 2 * intermediate, hidden, dtype=cache.dtype, interleaved=True)
        self.gate_up_proj_bias = weight(experts, 2 * intermediate, dtype=cache.dtype, interleaved=1)
        self.add_matrix("down_proj", experts, hidden, intermediate, dtype=cache.dtype)
        self.down_proj_bias = weight(experts, hidden, dtype=cache.dtype)
        self.activation = ClampedSwiGLU(config.swiglu_limit, config.swiglu_alpha)

    def construct(self, hidden: Tensor, indices: Tensor, routing: Tensor) -> Tensor:
        return ops.experts(
            hidden,
            indices,
            routing,
            self.gate_up_proj,
            self.gate_up_proj_bias,
            self.down_proj,
            self.down_proj_bias,
            self.activation,
            (self.gate_up_proj_encoding, self.down_proj_encoding),
        )


class GptOssMLP(nn.Cell):
    """A linear router selects the top experts of each token; the softmax covers only these."""

    def __init__(self, config: GptOssConfig, cache: CacheShape) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.router = Linear(config.hidden_size, config.num_local_experts, bias=True, dtype=cache.dtype)
        self.experts = GptOssExperts(config, cache)

    def construct(self, hidden: Tensor) -> Tensor:
        routing, indices = ops.top_k_softmax(self.router(hidden), self.num_experts_per_tok)
        return self.experts(hidden, indices, routing)
