"""Llama 2, 3, 3.1 and later for MindSpore's graph mode.

Source: https://github.com/meta-llama/llama-models and ``transformers/models/llama/modeling_llama.py``.
"""

from __future__ import annotations

from msport.architectures.llama import LlamaConfig
from msport.msmodels.layers.activations import silu
from msport.msmodels.layers.attention import Attention
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.mlp import GatedMLP


class LlamaAttention(Attention):
    """Attention to everything before, with biases on all four projections or on none."""

    def __init__(self, config: LlamaConfig, cache: CacheShape, window: int | None) -> None:
        super().__init__(config, cache, window, qkv_bias=config.attention_bias, output_bias=config.attention_bias)


class LlamaDecoderLayer(PreNormLayer):
    def __init__(self, config: LlamaConfig, cache: CacheShape, window: int | None) -> None:
        mlp = GatedMLP(config.hidden_size, config.intermediate_size, silu, bias=config.mlp_bias, dtype=cache.dtype)
        super().__init__(config, cache, LlamaAttention(config, cache, window), mlp)


class LlamaForCausalLM(CausalLM):
    def __init__(self, config: LlamaConfig, cache: CacheShape) -> None:
        super().__init__(config, cache, lambda index: LlamaDecoderLayer(config, cache, config.windows[index]))
