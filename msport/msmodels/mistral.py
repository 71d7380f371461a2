"""Mistral 7B (v0.1 to v0.3) and Nemo for MindSpore's graph mode.

Source: https://arxiv.org/abs/2310.06825 and ``transformers/models/mistral/modeling_mistral.py``.
"""

from __future__ import annotations

from msport.architectures import ModelConfig
from msport.msmodels.layers.activations import silu
from msport.msmodels.layers.attention import Attention
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.mlp import GatedMLP


class MistralAttention(Attention):
    """Attention without biases; the window, where there is one, is that of every layer."""

    def __init__(self, config: ModelConfig, cache: CacheShape, window: int | None) -> None:
        super().__init__(config, cache, window, qkv_bias=False, output_bias=False)


class MistralDecoderLayer(PreNormLayer):
    def __init__(self, config: ModelConfig, cache: CacheShape, window: int | None) -> None:
        mlp = GatedMLP(config.hidden_size, config.intermediate_size, silu, dtype=cache.dtype)
        super().__init__(config, cache, MistralAttention(config, cache, window), mlp)


class MistralForCausalLM(CausalLM):
    def __init__(self, config: ModelConfig, cache: CacheShape) -> None:
        super().__init__(config, cache, lambda index: MistralDecoderLayer(config, cache, config.windows[index]))
