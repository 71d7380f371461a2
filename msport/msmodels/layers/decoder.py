"""The decoder-only language model around a family's layers."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, nn
from mindspore import ops as msops

from msport.architectures import ModelConfig
from msport.msmodels import ops
from msport.msmodels.layers.attention import Attention, Step
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.linear import Embedding, Linear
from msport.msmodels.layers.norm import RMSNorm
from msport.msmodels.layers.rope import RotaryEmbedding

LayerFactory = Callable[[int], nn.Cell]


class Decoder(nn.Cell):
    """Maps ``ids [batch, seq]`` at positions from ``start [batch]`` on to hidden states ``[batch * seq, hidden_size]``.

    `layer(index)` builds a decoder layer, which takes the hidden states and the `Step` of its window. Embeddings are
    multiplied by `embedding_scale`; the final `RMSNorm` gets `unit_offset`.
    """

    def __init__(
        self, config: ModelConfig, cache: CacheShape, layer: LayerFactory, *, embedding_scale: float, unit_offset: bool
    ) -> None:
        super().__init__()
        self.embedding_scale = embedding_scale
        self.num_key_value_heads = config.num_key_value_heads
        self.dtype = cache.dtype
        self.windows = tuple(dict.fromkeys(config.windows))
        self.lengths = tuple(cache.length(window) for window in self.windows)
        self.kinds = tuple(self.windows.index(window) for window in config.windows)
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, dtype=cache.dtype)
        self.layers = nn.CellList([layer(index) for index in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=cache.dtype, unit_offset=unit_offset)
        self.rotary_emb = RotaryEmbedding(config.rope, config.head_dim, cache.context)

    def construct(self, ids: Tensor, start: Tensor) -> Tensor:
        """The residual stream after the last layer, before the final norm."""
        steps = self.steps(ids, start)
        hidden = self.embed(ids)
        for index in range(len(self.layers)):
            hidden = self.layers[index](hidden, steps[self.kinds[index]])
        return hidden

    def embed(self, ids: Tensor) -> Tensor:
        """The residual stream before the first layer."""
        embedded = self.embed_tokens(ids)
        if self.embedding_scale != 1:
            embedded = embedded * self.embedding_scale
        return embedded

    def steps(self, ids: Tensor, start: Tensor) -> tuple[Step, ...]:
        """One `Step` per distinct window."""
        positions = start.reshape(-1, 1) + msops.arange(ids.shape[1]).astype(ms.int32)
        cos, sin = self.rotary_emb(positions)
        steps: tuple[Step, ...] = ()
        for window, length in zip(self.windows, self.lengths):  # noqa: B905 (a keyword leaves the graph)
            slots = ops.cache_slots(positions, self.num_key_value_heads, length)
            mask = ops.attention_mask(positions, length, window, self.dtype)
            steps = steps + ((cos, sin, slots, mask),)
        return steps


class PreNormLayer(nn.Cell):
    """The decoder layer of most families: attention and feed-forward, each with a norm before it and a residual
    connection.

    A family derives from it and sets `mlp`, or overrides `feed_forward`.
    """

    mlp: nn.Cell

    def __init__(self, config: ModelConfig, cache: CacheShape, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=cache.dtype)
        self.self_attn = Attention(config, cache, config.windows[index])
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=cache.dtype)

    def construct(self, hidden: Tensor, step: Step) -> Tensor:
        attended = self.self_attn(self.input_layernorm(hidden), step)
        normalised, hidden = self.post_attention_layernorm.add(hidden, attended)
        return hidden + self.feed_forward(normalised)

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class CausalLM(nn.Cell):
    """A decoder of the layers that `layer(index)` builds, with its head; see `Decoder` for the options."""

    def __init__(
        self,
        config: ModelConfig,
        cache: CacheShape,
        layer: LayerFactory,
        *,
        embedding_scale: float = 1.0,
        unit_offset: bool = False,
    ) -> None:
        super().__init__()
        self.softcap = config.final_logit_softcapping
        self.hidden_size = config.hidden_size
        self.model = Decoder(config, cache, layer, embedding_scale=embedding_scale, unit_offset=unit_offset)
        self.tied = config.tie_word_embeddings
        if not self.tied:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False, dtype=cache.dtype)

    def construct(self, ids: Tensor, start: Tensor, rows: Tensor) -> Tensor:
        """Float32 logits ``[batch * n, vocab]`` of the rows ``[batch * n]`` of the flattened ``ids [batch, seq]``.

        `start` ``[batch]`` is the position of each sequence's first id; its earlier ones are in the caches.
        """
        return self.logits(msops.gather(self.model(ids, start), rows, 0))

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits ``[n, vocab]`` of the residual stream ``[n, hidden_size]`` after the last layer."""
        logits = self.head(self.model.norm(hidden)).astype(ms.float32)
        if self.softcap is not None:
            logits = ops.soft_cap(logits, self.softcap)
        return logits

    def head(self, hidden: Tensor) -> Tensor:
        if self.tied:
            embedding = self.model.embed_tokens
            return ops.linear(hidden, embedding.weight, None, embedding.weight_encoding)
        return self.lm_head(hidden)
