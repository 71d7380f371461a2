"""Grouped-query self-attention over a static cache, with the additions of the config."""

from __future__ import annotations

from mindspore import Tensor, nn

from msport.architectures import ModelConfig
from msport.msmodels import ops
from msport.msmodels.layers.cache import CacheShape, KeyValueCache
from msport.msmodels.layers.linear import Linear
from msport.msmodels.layers.norm import RMSNorm
from msport.msmodels.layers.parameters import weight

# What one call of a graph computes once for all layers with the same window: cos and sin, [batch, seq, 1, head_dim /
# 2]; the cache rows of the new keys and values; the mask. This is a plain tuple because a NamedTuple cannot be built
# inside a graph.
Step = tuple[Tensor, Tensor, Tensor, Tensor]


class Attention(nn.Cell):
    """Maps ``hidden [batch * seq, hidden_size]`` to the same shape and writes new keys and values to this layer's
    cache.

    `window` is the layer's sliding window, None where a query sees all earlier tokens. Biases, norms of heads, sinks,
    scale and soft-cap are those of `config`.
    """

    def __init__(self, config: ModelConfig, cache: CacheShape, window: int | None) -> None:
        super().__init__()
        self.batch = cache.batch
        self.heads = config.num_attention_heads
        self.key_value_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5 if config.attention_scale is None else config.attention_scale
        self.softcap = config.attn_logit_softcapping
        self.sinks = weight(self.heads, dtype=cache.dtype) if config.sinks else None
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        if config.qk_norm:
            self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps, dtype=cache.dtype)
            self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps, dtype=cache.dtype)
        queries, keys = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, queries, bias=config.qkv_bias, dtype=cache.dtype)
        self.k_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias, dtype=cache.dtype)
        self.v_proj = Linear(config.hidden_size, keys, bias=config.qkv_bias, dtype=cache.dtype)
        self.o_proj = Linear(queries, config.hidden_size, bias=config.output_bias, dtype=cache.dtype)
        self.cache = KeyValueCache(cache, window, self.key_value_heads, self.head_dim)

    def construct(self, hidden: Tensor, step: Step) -> Tensor:
        cos, sin, slots, mask = step
        query = self.split_heads(self.q_proj(hidden), self.heads)
        key = self.split_heads(self.k_proj(hidden), self.key_value_heads)
        value = self.split_heads(self.v_proj(hidden), self.key_value_heads)
        if self.q_norm is not None and self.k_norm is not None:
            query = self.q_norm(query)
            key = self.k_norm(key)
        query, keys, values = self.cache(query, key, value, cos, sin, slots)
        mixed = ops.attention(query, keys, values, mask, self.scale, self.sinks, self.softcap)
        return self.o_proj(mixed)

    def split_heads(self, x: Tensor, heads: int) -> Tensor:
        """``[batch * seq, heads * head_dim]`` to ``[batch, seq, heads, head_dim]``."""
        return x.reshape(self.batch, -1, heads, self.head_dim)
