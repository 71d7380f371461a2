"""The bytes that a model holds and reads, and its operations, from its config and its table of weights alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from msport.architectures import ARCHITECTURES, ModelConfig, Weight
from msport.checkpoint.dtypes import by_name

# Tokens of a prompt that run together, unless a model is loaded with another number.
PREFILL_CHUNK = 128


def cache_length(window: int | None, max_length: int, chunk: int) -> int:
    """Number of slots of a layer's cache if prompts run in chunks of `chunk` tokens.

    Full attention needs `max_length` in whole chunks, because padding in the last chunk is written too. A ring buffer
    holds the window plus the current chunk, so padding overwrites only slots that no later query sees.
    """
    context = -(-max_length // chunk) * chunk
    return context if window is None else min(context, window + chunk)


@dataclass(frozen=True, slots=True)
class _Sum:
    """A sum over weights: parameters, how many of them stay packed, and the bytes of the packed ones."""

    parameters: int
    packed: int
    packed_bytes: int

    def nbytes(self, itemsize: int) -> int:
        return (self.parameters - self.packed) * itemsize + self.packed_bytes


@dataclass(frozen=True, slots=True)
class _Table:
    """The table of weights, summed by what a token needs: all of it, the part of its experts, or one row."""

    always: _Sum
    routed: _Sum
    looked_up: _Sum
    widest: int


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes and floating-point operations of the model `config` with weights and caches in `dtype`."""

    config: ModelConfig
    dtype: str

    @property
    def itemsize(self) -> int:
        """Bytes per element in `dtype`."""
        return by_name(self.dtype).itemsize

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        table = _table(self.config)
        return sum(weights.nbytes(self.itemsize) for weights in (table.always, table.routed, table.looked_up))

    @property
    def widest(self) -> int:
        """The largest number of output elements per token of a weight between embedding and head."""
        return _table(self.config).widest

    def kv_bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token in all layers."""
        return self.config.num_hidden_layers * self._kv_bytes

    def cache_bytes(self, max_length: int, batch: int, chunk: int) -> int:
        """Bytes of the static caches of all layers, as `load_model` allocates them."""
        slots = sum(cache_length(window, max_length, chunk) for window in self.config.windows)
        return slots * batch * self._kv_bytes

    def decode_bytes(self, position: int, batch: int = 1) -> int:
        """Bytes that a decode step of `batch` sequences at `position` must read: weights, and visible keys and values.

        It counts the experts that the batch needs if tokens are routed evenly.
        """
        seen = sum(_visible(position, window) for window in self.config.windows)
        table = _table(self.config)
        read = table.always.nbytes(self.itemsize) + int(table.routed.nbytes(self.itemsize) * self._touched(batch))
        return read + batch * seen * self._kv_bytes

    def prefill_flops(self, tokens: int) -> int:
        """Multiplications and additions for a prompt of `tokens` with the logits of its last token."""
        head = self.config.vocab_size * self.config.hidden_size
        table = _table(self.config)
        active = table.always.parameters + int(table.routed.parameters * self._touched(1))
        products = 2 * (active - head) * tokens + 2 * head
        pairs = sum(_visible_pairs(tokens, window) for window in self.config.windows)
        return products + 4 * pairs * self.config.num_attention_heads * self.config.head_dim

    @property
    def _kv_bytes(self) -> int:
        """Bytes of a key and a value in every head of one layer."""
        return 2 * self.config.num_key_value_heads * self.config.head_dim * self.itemsize

    def _touched(self, tokens: int) -> float:
        """The expected share of the experts to which `tokens` tokens are routed."""
        experts: int = getattr(self.config, "num_local_experts", 1)
        active: int = getattr(self.config, "num_experts_per_tok", 1)
        return 1.0 - (1.0 - active / experts) ** tokens


# A benchmark calls this for every position, and the table of a mixture has thousands of rows.
@lru_cache(maxsize=8)
def _table(config: ModelConfig) -> _Table:
    always, routed, looked_up = list[Weight](), list[Weight](), list[Weight]()
    for row in ARCHITECTURES[config.architecture].weights(config):
        if ".experts." in row.name:
            routed.append(row)
        elif row.name.endswith("embed_tokens.weight") and not config.tie_word_embeddings:
            looked_up.append(row)
        else:
            always.append(row)
    between = [row for row in always + routed if "embed_tokens" not in row.name and "lm_head" not in row.name]
    return _Table(_sum(always), _sum(routed), _sum(looked_up), max(_width(row, config) for row in between))


def _sum(rows: Sequence[Weight]) -> _Sum:
    """In packed weights, blocks hold two parameters per byte, and scales none."""
    packed = [row for row in rows if row.packed]
    parameters = sum(2 * prod(row.shape) for row in packed if row.name.endswith("_blocks"))
    plain = sum(prod(row.shape) for row in rows if not row.packed)
    return _Sum(plain + parameters, parameters, sum(prod(row.shape) for row in packed))


def _width(row: Weight, config: ModelConfig) -> int:
    """Number of output elements per token of this weight; a token uses several experts."""
    if ".experts." not in row.name or len(row.shape) < 3:
        return row.shape[0]
    outputs = row.shape[1] if row.name.endswith("_blocks") else row.shape[2]  # packed [out, in], others [in, out]
    return outputs * int(getattr(config, "num_experts_per_tok", 1))


def _visible(position: int, window: int | None) -> int:
    return position + 1 if window is None else min(position + 1, window)


def _visible_pairs(tokens: int, window: int | None) -> int:
    """Number of pairs of a query and a visible key in a prompt of `tokens` tokens."""
    growing = tokens if window is None else min(tokens, window)
    return growing * (growing + 1) // 2 + (tokens - growing) * growing
