"""Qwen3, dense, for MindSpore's graph mode.

Source: https://arxiv.org/abs/2505.09388 and ``transformers/models/qwen3/modeling_qwen3.py``.
"""

from __future__ import annotations

from msport.architectures.qwen3 import Qwen3Config
from msport.architectures.qwen3_moe import Qwen3MoeConfig
from msport.msmodels.layers.activations import silu
from msport.msmodels.layers.attention import Attention
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.mlp import GatedMLP
from msport.msmodels.layers.norm import RMSNorm


class Qwen3Attention(Attention):
    """Attention whose queries and keys are normalised per head, over head_dim, before they are rotated."""

    def __init__(self, config: Qwen3Config | Qwen3MoeConfig, cache: CacheShape, window: int | None) -> None:
        super().__init__(config, cache, window, qkv_bias=config.attention_bias, output_bias=config.attention_bias)
        self.q_norm = RMSNorm(config.head_dim, config.rms_norm_eps, dtype=cache.dtype)
        self.k_norm = RMSNorm(config.head_dim, config.rms_norm_eps, dtype=cache.dtype)


class Qwen3DecoderLayer(PreNormLayer):
    def __init__(self, config: Qwen3Config, cache: CacheShape, window: int | None) -> None:
        mlp = GatedMLP(config.hidden_size, config.intermediate_size, silu, dtype=cache.dtype)
        super().__init__(config, cache, Qwen3Attention(config, cache, window), mlp)


class Qwen3ForCausalLM(CausalLM):
    def __init__(self, config: Qwen3Config, cache: CacheShape) -> None:
        super().__init__(config, cache, lambda index: Qwen3DecoderLayer(config, cache, config.windows[index]))
