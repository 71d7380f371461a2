"""Llama, Mistral, Qwen2, Qwen3 and Qwen3-MoE: one network, because they differ only in flags of the config.

``msport/architectures/<family>.py`` defines the biases, norms, windows and experts of a family. Source:
``transformers/models/{llama,mistral,qwen2,qwen3,qwen3_moe}``.
"""

from __future__ import annotations

from mindspore import nn

from msport.architectures import ModelConfig, SparseConfig
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.mlp import GatedMLP, SparseMoE


def build(config: ModelConfig, cache: CacheShape) -> CausalLM:
    return CausalLM(config, cache, lambda index: DecoderLayer(config, cache, index))


class DecoderLayer(PreNormLayer):
    def __init__(self, config: ModelConfig, cache: CacheShape, index: int) -> None:
        super().__init__(config, cache, index)
        self.mlp = feed_forward(config, cache, index)


def feed_forward(config: ModelConfig, cache: CacheShape, index: int) -> nn.Cell:
    """Experts in the sparse layers of a mixture, a dense feed-forward in every other layer."""
    if isinstance(config, SparseConfig) and config.sparse_layers[index]:
        return SparseMoE(config, cache)
    return GatedMLP(config, cache)
