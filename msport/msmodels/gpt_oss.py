"""gpt-oss (20b, 120b) for MindSpore's graph mode.

Source: https://github.com/openai/gpt-oss and ``transformers/models/gpt_oss/modeling_gpt_oss.py``.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from msport.architectures.gpt_oss import GptOssConfig
from msport.checkpoint.mxfp4 import BLOCK_BYTES, BLOCK_VALUES
from msport.msmodels import ops
from msport.msmodels.layers.activations import ClampedSwiGLU
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.linear import Linear
from msport.msmodels.layers.parameters import weight


def build(config: GptOssConfig, cache: CacheShape) -> CausalLM:
    return CausalLM(config, cache, lambda index: GptOssDecoderLayer(config, cache, index))


class GptOssDecoderLayer(PreNormLayer):
    def __init__(self, config: GptOssConfig, cache: CacheShape, index: int) -> None:
        super().__init__(config, cache, index)
        self.mlp = GptOssMLP(config, cache)


class GptOssExperts(nn.Cell):
    """The weights of all experts in Transformers' layout; gate and up are interleaved in `gate_up_proj`."""

    def __init__(self, config: GptOssConfig, cache: CacheShape) -> None:
        super().__init__()
        experts, hidden, intermediate = config.num_local_experts, config.hidden_size, config.intermediate_size
        self.gate_up_proj = weight(experts, hidden, 2 * intermediate, dtype=cache.dtype, interleaved=2)
        self.gate_up_proj_bias = weight(experts, 2 * intermediate, dtype=cache.dtype, interleaved=1)
        self.down_proj = weight(experts, intermediate, hidden, dtype=cache.dtype)
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
        )


class PackedGptOssExperts(nn.Cell):
    """The same in the Hub's layout: MXFP4 with one row per output, packed along the inputs."""

    def __init__(self, config: GptOssConfig, cache: CacheShape) -> None:
        super().__init__()
        experts, hidden, intermediate = config.num_local_experts, config.hidden_size, config.intermediate_size
        up, down = 2 * intermediate, hidden
        up_blocks, down_blocks = hidden // BLOCK_VALUES, intermediate // BLOCK_VALUES
        self.gate_up_proj_blocks = weight(experts, up, up_blocks, BLOCK_BYTES, dtype=ms.uint8, interleaved=1)
        self.gate_up_proj_scales = weight(experts, up, up_blocks, dtype=ms.uint8, interleaved=1)
        self.gate_up_proj_bias = weight(experts, up, dtype=cache.dtype, interleaved=1)
        self.down_proj_blocks = weight(experts, down, down_blocks, BLOCK_BYTES, dtype=ms.uint8)
        self.down_proj_scales = weight(experts, down, down_blocks, dtype=ms.uint8)
        self.down_proj_bias = weight(experts, down, dtype=cache.dtype)
        self.activation = ClampedSwiGLU(config.swiglu_limit, config.swiglu_alpha)

    def construct(self, hidden: Tensor, indices: Tensor, routing: Tensor) -> Tensor:
        return ops.packed_experts(
            hidden,
            indices,
            routing,
            self.gate_up_proj_blocks,
            self.gate_up_proj_scales,
            self.gate_up_proj_bias,
            self.down_proj_blocks,
            self.down_proj_scales,
            self.down_proj_bias,
            self.activation,
        )


class GptOssMLP(nn.Cell):
    """A linear router selects the top experts of each token; the softmax covers only these."""

    def __init__(self, config: GptOssConfig, cache: CacheShape) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.router = Linear(config.hidden_size, config.num_local_experts, bias=True, dtype=cache.dtype)
        self.experts = PackedGptOssExperts(config, cache) if config.packed_experts else GptOssExperts(config, cache)

    def construct(self, hidden: Tensor) -> Tensor:
        routing, indices = ops.top_k_softmax(self.router(hidden), self.num_experts_per_tok)
        return self.experts(hidden, indices, routing)
