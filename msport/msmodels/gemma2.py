"""Gemma2 (2B, 9B, 27B) for MindSpore's graph mode.

Source: https://arxiv.org/abs/2408.00118 and ``transformers/models/gemma2/modeling_gemma2.py``.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from msport.architectures import ModelConfig
from msport.checkpoint import dtypes
from msport.msmodels.layers.attention import Attention, Step
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM
from msport.msmodels.layers.mlp import GatedMLP
from msport.msmodels.layers.norm import RMSNorm


def build(config: ModelConfig, cache: CacheShape) -> CausalLM:
    """The network of Gemma2. The final norm adds 1 to its weight, like those of the layers; embeddings are scaled,
    and logits soft-capped.
    """
    return CausalLM(
        config,
        cache,
        lambda index: Gemma2DecoderLayer(config, cache, index),
        embedding_scale=embedding_scale(config.hidden_size, cache.dtype),
        unit_offset=True,
    )


class Gemma2Norm(RMSNorm):
    """Scales by 1 + weight, in float32."""

    def __init__(self, config: ModelConfig, cache: CacheShape) -> None:
        super().__init__(config.hidden_size, config.rms_norm_eps, dtype=cache.dtype, unit_offset=True)


class Gemma2DecoderLayer(nn.Cell):
    """A norm before and after attention, and before and after the feed-forward."""

    def __init__(self, config: ModelConfig, cache: CacheShape, index: int) -> None:
        super().__init__()
        self.input_layernorm = Gemma2Norm(config, cache)
        self.self_attn = Attention(config, cache, config.windows[index])
        self.post_attention_layernorm = Gemma2Norm(config, cache)
        self.pre_feedforward_layernorm = Gemma2Norm(config, cache)
        self.mlp = GatedMLP(config, cache)
        self.post_feedforward_layernorm = Gemma2Norm(config, cache)

    def construct(self, hidden: Tensor, step: Step) -> Tensor:
        attended = self.self_attn(self.input_layernorm(hidden), step)
        normalised, hidden = self.pre_feedforward_layernorm.add(hidden, self.post_attention_layernorm(attended))
        transformed = self.mlp(normalised)
        return hidden + self.post_feedforward_layernorm(transformed)


def embedding_scale(hidden_size: int, dtype: ms.Type) -> float:
    """The square root of `hidden_size`, rounded to the dtype of computation, as in Transformers.

    For 9B and 27B: 59.75 and 68 in bfloat16, 59.87 and 67.88 in float32.
    """
    root = np.array([hidden_size**0.5], np.float32)
    target = dtypes.by_name(str(dtype).lower())
    rounded = dtypes.cast(root, dtypes.FLOAT32, target)
    return float(dtypes.cast(rounded, target, dtypes.FLOAT32)[0])
