"""The bytes that a model holds and reads, and its operations, from its config and its table of weights alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod

from msport.architectures import ARCHITECTURES, ModelConfig, Role, Weight
from msport.checkpoint.dtypes import by_name
from msport.encodings import Encoding, Plain, nbytes
from msport.sizing.kept import MATRICES, Encodings

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
class _Table:
    """The table of weights, by what a token needs: all of it, the part of its experts, or one row."""

    always: tuple[Weight, ...]
    routed: tuple[Weight, ...]
    looked_up: tuple[Weight, ...]
    always_parameters: int
    routed_parameters: int
    widest: int


@dataclass(frozen=True, slots=True)
class _Bytes:
    """The bytes of the weights of a `_Table`."""

    always: int
    routed: int
    looked_up: int


@dataclass(frozen=True)
class Costs:
    """Bytes and floating-point operations of the model `config` that computes in `dtype`, with caches in `dtype`.

    `kept` are the weights that stay in memory in an encoding of their own (`kept_encodings`), by name; the others are
    plain in `dtype`.
    """

    config: ModelConfig
    dtype: str
    kept: Encodings = field(default_factory=dict)

    @property
    def itemsize(self) -> int:
        """Bytes per element in `dtype`."""
        return by_name(self.dtype).itemsize

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters."""
        return self._bytes.always + self._bytes.routed + self._bytes.looked_up

    @property
    def storage(self) -> tuple[str, ...]:
        """The names of the encodings that hold the matrices, the one that holds most parameters first."""
        parameters = Counter[str]()
        for row in ARCHITECTURES[self.config.architecture].weights(self.config):
            if row.role in MATRICES:
                parameters[self.encoding(row).name] += prod(row.matrix)
        return tuple(name for name, _ in parameters.most_common())

    @property
    def widest(self) -> int:
        """The largest number of output elements per token of a weight between embedding and head."""
        return _table(self.config).widest

    def encoding(self, row: Weight) -> Encoding:
        """The encoding of `row` in memory."""
        return self.kept.get(row.name) or Plain(by_name(self.dtype))

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
        read = self._bytes.always + int(self._bytes.routed * self._touched(batch))
        return read + batch * seen * self._kv_bytes

    def prefill_flops(self, tokens: int) -> int:
        """Multiplications and additions for a prompt of `tokens` with the logits of its last token."""
        head = self.config.vocab_size * self.config.hidden_size
        table = _table(self.config)
        active = table.always_parameters + int(table.routed_parameters * self._touched(1))
        products = 2 * (active - head) * tokens + 2 * head
        pairs = sum(_visible_pairs(tokens, window) for window in self.config.windows)
        return products + 4 * pairs * self.config.num_attention_heads * self.config.head_dim

    @cached_property
    def _bytes(self) -> _Bytes:
        table = _table(self.config)
        return _Bytes(*(sum(map(self._nbytes, rows)) for rows in (table.always, table.routed, table.looked_up)))

    def _nbytes(self, row: Weight) -> int:
        return nbytes(self.encoding(row), row.matrix)

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
        if row.role in (Role.EXPERTS, Role.EXPERT_BIASES):
            routed.append(row)
        elif row.role is Role.EMBEDDING and not config.tie_word_embeddings:
            looked_up.append(row)
        else:
            always.append(row)
    between = [row for row in always + routed if row.role not in (Role.EMBEDDING, Role.HEAD)]
    parameters = [sum(prod(row.matrix) for row in rows) for rows in (always, routed)]
    return _Table(
        tuple(always),
        tuple(routed),
        tuple(looked_up),
        parameters[0],
        parameters[1],
        max(_width(row, config) for row in between),
    )


def _width(row: Weight, config: ModelConfig) -> int:
    """Number of output elements per token of this weight; a token uses several experts."""
    if row.role is not Role.EXPERTS:
        return row.matrix[0]
    return row.matrix[-2] * int(getattr(config, "num_experts_per_tok", 1))


def _visible(position: int, window: int | None) -> int:
    return position + 1 if window is None else min(position + 1, window)


def _visible_pairs(tokens: int, window: int | None) -> int:
    """Number of pairs of a query and a visible key in a prompt of `tokens` tokens."""
    growing = tokens if window is None else min(tokens, window)
    return growing * (growing + 1) // 2 + (tokens - growing) * growing
