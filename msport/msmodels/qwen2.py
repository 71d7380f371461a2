"""Qwen2 and Qwen2.5 for MindSpore's graph mode.

Source: https://arxiv.org/abs/2412.15115 and ``transformers/models/qwen2/modeling_qwen2.py``.
"""

from __future__ import annotations

from msport.architectures import ModelConfig
from msport.msmodels.layers.activations import silu
from msport.msmodels.layers.attention import Attention
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.mlp import GatedMLP


class Qwen2Attention(Attention):
    """Attention with biases on q, k and v but not on o."""

    def __init__(self, config: ModelConfig, cache: CacheShape, window: int | None) -> None:
        super().__init__(config, cache, window, qkv_bias=True, output_bias=False)


class Qwen2DecoderLayer(PreNormLayer):
    def __init__(self, config: ModelConfig, cache: CacheShape, window: int | None) -> None:
        mlp = GatedMLP(config.hidden_size, config.intermediate_size, silu, dtype=cache.dtype)
        super().__init__(config, cache, Qwen2Attention(config, cache, window), mlp)


class Qwen2ForCausalLM(CausalLM):
    def __init__(self, config: ModelConfig, cache: CacheShape) -> None:
        super().__init__(config, cache, lambda index: Qwen2DecoderLayer(config, cache, config.windows[index]))
