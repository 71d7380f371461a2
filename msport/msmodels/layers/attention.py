"""Grouped-query self-attention over a static cache, with what families add to it as options."""

from __future__ import annotations

from mindspore import Tensor, nn

from msport.architectures import ModelConfig
from msport.msmodels import ops
from msport.msmodels.layers.cache import CacheShape, KeyValueCache
from msport.msmodels.layers.linear import Linear
from msport.msmodels.layers.norm import RMSNorm

# What one call of a graph computes once for all layers with the same window: cos and sin, [batch, seq, 1, head_dim /
# 2]; the cache rows of the new keys and values; the mask. A plain tuple, for a NamedTuple's construction would leave
# the graph.
Step = tuple[Tensor, Tensor, Tensor, Tensor]


class Attention(nn.Cell):
    """``hidden [batch * seq, hidden_size]`` to the same shape; new keys and values go to this layer's cache.

    `window` is the layer's sliding window or None, `scale` multiplies the scores, `softcap` bounds them. A family may
    set `sinks`, and `q_norm` and `k_norm`, which normalise each head before it is rotated.
    """

    def __init__(
        self,
        config: ModelConfig,
        cache: CacheShape,
        window: int | None,
        *,
        qkv_bias: bool,
        output_bias: bool,
        scale: float | None = None,
        softcap: float | None = None,
    ) -> None:
        super().__init__()
        self.batch = cache.batch
        self.heads = config.num_attention_heads
        self.key_value_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        self.scale = config.head_dim**-0.5 if scale is None else scale
        self.softcap = softcap
        self.sinks = None
        self.q_norm: RMSNorm | None = None
        self.k_norm: RMSNorm | None = None
        queries, keys = self.heads * self.head_dim, self.key_value_heads * self.head_dim
        self.q_proj = Linear(config.hidden_size, queries, bias=qkv_bias, dtype=cache.dtype)
        self.k_proj = Linear(config.hidden_size, keys, bias=qkv_bias, dtype=cache.dtype)
        self.v_proj = Linear(config.hidden_size, keys, bias=qkv_bias, dtype=cache.dtype)
        self.o_proj = Linear(queries, config.hidden_size, bias=output_bias, dtype=cache.dtype)
        self.cache = KeyValueCache(cache, window, self.key_value_heads, self.head_dim)

    def construct(self, hidden: Tensor, step: Step) -> Tensor:
        cos, sin, slots, mask = step
        query = self.split_heads(self.q_proj(hidden), self.heads)
        key = self.split_heads(self.k_proj(hidden), self.key_value_heads)
        value = self.split_heads(self.v_proj(hidden), self.key_value_heads)
        if self.q_norm is not None and self.k_norm is not None:
            query = self.q_norm(query)
            key = self.k_norm(key)
        query = ops.apply_rotary(query, cos, sin)
        key = ops.apply_rotary(key, cos, sin)
        keys, values = self.cache(key, value, slots)
        mixed = ops.attention(query, keys, values, mask, self.scale, self.sinks, self.softcap)
        return self.o_proj(mixed)

    def split_heads(self, x: Tensor, heads: int) -> Tensor:
        """``[batch * seq, heads * head_dim]`` to ``[batch, seq, heads, head_dim]``."""
        return x.reshape(self.batch, -1, heads, self.head_dim)
