"""Mixtral 8x7B and 8x22B: the decoder of Mistral with a mixture of experts, which has a different name on the Hub.

Source: https://arxiv.org/abs/2401.04088 and ``transformers/models/mixtral/modeling_mixtral.py``.
"""

from __future__ import annotations

from mindspore import Tensor

from msport.architectures import SparseConfig
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, PreNormLayer
from msport.msmodels.layers.mlp import SparseMoE


def build(config: SparseConfig, cache: CacheShape) -> CausalLM:
    return CausalLM(config, cache, lambda index: MixtralDecoderLayer(config, cache, index))


class MixtralDecoderLayer(PreNormLayer):
    """The Hub calls the feed-forward `block_sparse_moe` here."""

    def __init__(self, config: SparseConfig, cache: CacheShape, index: int) -> None:
        super().__init__(config, cache, index)
        self.block_sparse_moe = SparseMoE(config, cache)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.block_sparse_moe(x)
