"""Qwen3-MoE (30B-A3B, 235B-A22B) for MindSpore's graph mode.

Source: https://arxiv.org/abs/2505.09388 and ``transformers/models/qwen3_moe/modeling_qwen3_moe.py``.
"""

from __future__ import annotations

from mindspore import nn

from msport.architectures.qwen3_moe import Qwen3MoeConfig
from msport.msmodels.layers.activations import silu
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.mlp import GatedMLP, SparseMoE
from msport.msmodels.qwen3 import Qwen3Attention


def feed_forward(config: Qwen3MoeConfig, cache: CacheShape, index: int) -> nn.Cell:
    """Experts in the sparse layers, one dense feed-forward in the others."""
    if not config.sparse_layers[index]:
        return GatedMLP(config.hidden_size, config.intermediate_size, silu, dtype=cache.dtype)
    return SparseMoE(
        config.num_local_experts,
        config.num_experts_per_tok,
        config.hidden_size,
        config.moe_intermediate_size,
        normalize=config.norm_topk_prob,
        dtype=cache.dtype,
    )


class Qwen3MoeDecoderLayer(PreNormLayer):
    def __init__(self, config: Qwen3MoeConfig, cache: CacheShape, index: int) -> None:
        attention = Qwen3Attention(config, cache, config.windows[index])
        super().__init__(config, cache, attention, feed_forward(config, cache, index))


class Qwen3MoeForCausalLM(CausalLM):
    def __init__(self, config: Qwen3MoeConfig, cache: CacheShape) -> None:
        super().__init__(config, cache, lambda index: Qwen3MoeDecoderLayer(config, cache, index))
