"""What a model must move and multiply, for honest percentages of a machine's limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from msport.architectures import ARCHITECTURES, ModelConfig, Weight


def cache_length(window: int | None, max_length: int, chunk: int) -> int:
    """Slots of a layer's cache when prompts run in chunks of `chunk` tokens.

    Full attention takes `max_length` in whole chunks, for the last one may carry padding, which is written too. A ring
    holds the window beside the chunk that is being written: padding then lands only where no later query looks.
    """
    context = -(-max_length // chunk) * chunk
    return context if window is None else min(context, window + chunk)


_ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class _Size:
    """Of some weights: their bytes as they are stored, and how many parameters they hold."""

    nbytes: int = 0
    parameters: int = 0

    def __add__(self, other: _Size) -> _Size:
        return _Size(self.nbytes + other.nbytes, self.parameters + other.parameters)


@dataclass(frozen=True, slots=True)
class _Weights:
    """The weights of a model by how many of them a token needs: all, those of its experts, or one row."""

    always: _Size
    routed: _Size
    looked_up: _Size


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes and floating-point operations of the model `config` with weights and caches in `dtype`."""

    config: ModelConfig
    dtype: str

    @property
    def weight_bytes(self) -> int:
        """All parameters."""
        weights = _weights(self.config, self.dtype)
        return (weights.always + weights.routed + weights.looked_up).nbytes

    def kv_bytes_per_token(self) -> int:
        """Keys and values that one token adds over all layers."""
        return self.config.num_hidden_layers * self._kv_bytes

    def cache_bytes(self, max_length: int, batch: int, chunk: int) -> int:
        """The static caches of all layers, as `load_model` allocates them."""
        slots = sum(cache_length(window, max_length, chunk) for window in self.config.windows)
        return slots * batch * self._kv_bytes

    def decode_bytes(self, position: int, batch: int = 1) -> int:
        """The least that a decode step of `batch` sequences at `position` must read: weights, keys and values seen.

        Of the experts it counts as many as the batch touches when tokens are routed evenly.
        """
        seen = sum(_visible(position, window) for window in self.config.windows)
        weights = _weights(self.config, self.dtype)
        read = weights.always.nbytes + int(weights.routed.nbytes * self._touched(batch))
        return read + batch * seen * self._kv_bytes

    def prefill_flops(self, tokens: int) -> int:
        """Multiplications and additions for a prompt of `tokens` with the logits of its last token."""
        head = self.config.vocab_size * self.config.hidden_size
        weights = _weights(self.config, self.dtype)
        active = weights.always.parameters + int(weights.routed.parameters * self._touched(1))
        products = 2 * (active - head) * tokens + 2 * head
        pairs = sum(_visible_pairs(tokens, window) for window in self.config.windows)
        return products + 4 * pairs * self.config.num_attention_heads * self.config.head_dim

    @property
    def _kv_bytes(self) -> int:
        """A key and a value in every head of one layer."""
        return 2 * self.config.num_key_value_heads * self.config.head_dim * _ITEMSIZE[self.dtype]

    def _touched(self, tokens: int) -> float:
        """The share of the experts that `tokens` are routed to."""
        experts: int = getattr(self.config, "num_local_experts", 1)
        active: int = getattr(self.config, "num_experts_per_tok", 1)
        return 1.0 - (1.0 - active / experts) ** tokens


# A bench asks at every position, and the table of a mixture has thousands of rows.
@lru_cache(maxsize=8)
def _weights(config: ModelConfig, dtype: str) -> _Weights:
    always = routed = looked_up = _Size()
    for row in ARCHITECTURES[config.architecture].weights(config):
        size = _size(row, _ITEMSIZE[dtype])
        if ".experts." in row.name:
            routed += size
        elif row.name.endswith("embed_tokens.weight") and not config.tie_word_embeddings:
            looked_up += size
        else:
            always += size
    return _Weights(always, routed, looked_up)


def _size(row: Weight, itemsize: int) -> _Size:
    """Of packed weights, blocks hold two parameters a byte."""
    elements = prod(row.shape)
    if row.packed:
        return _Size(elements, 2 * elements if row.name.endswith("_blocks") else 0)
    return _Size(elements * itemsize, elements)


def _visible(position: int, window: int | None) -> int:
    return position + 1 if window is None else min(position + 1, window)


def _visible_pairs(tokens: int, window: int | None) -> int:
    """Queries of a prompt of `tokens`, each with every key that it sees."""
    growing = tokens if window is None else min(tokens, window)
    return growing * (growing + 1) // 2 + (tokens - growing) * growing
