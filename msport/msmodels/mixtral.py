"""Mixtral 8x7B and 8x22B for MindSpore's graph mode.

Source: https://arxiv.org/abs/2401.04088 and ``transformers/models/mixtral/modeling_mixtral.py``.
"""

from __future__ import annotations

from mindspore import Tensor, nn

from msport.architectures.mixtral import MixtralConfig
from msport.msmodels.layers.attention import Attention, Step
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM
from msport.msmodels.layers.mlp import SparseMoE
from msport.msmodels.layers.norm import RMSNorm


class MixtralAttention(Attention):
    """Attention without biases; the window, where there is one, is that of every layer."""

    def __init__(self, config: MixtralConfig, cache: CacheShape, window: int | None) -> None:
        super().__init__(config, cache, window, qkv_bias=False, output_bias=False)


class MixtralDecoderLayer(nn.Cell):
    def __init__(self, config: MixtralConfig, cache: CacheShape, window: int | None) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=cache.dtype)
        self.self_attn = MixtralAttention(config, cache, window)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=cache.dtype)
        self.block_sparse_moe = SparseMoE(
            config.num_local_experts,
            config.num_experts_per_tok,
            config.hidden_size,
            config.intermediate_size,
            normalize=True,
            dtype=cache.dtype,
        )

    def construct(self, hidden: Tensor, step: Step) -> Tensor:
        attended = self.self_attn(self.input_layernorm(hidden), step)
        normalised, hidden = self.post_attention_layernorm.add(hidden, attended)
        return hidden + self.block_sparse_moe(normalised)


class MixtralForCausalLM(CausalLM):
    def __init__(self, config: MixtralConfig, cache: CacheShape) -> None:
        super().__init__(config, cache, lambda index: MixtralDecoderLayer(config, cache, config.windows[index]))
