"""What a model must move and multiply, for honest percentages of a machine's limits."""

from __future__ import annotations

from dataclasses import dataclass
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
# The sizes in `Costs._weights`.
_NBYTES, _PARAMETERS = 0, 1


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes and floating-point operations of the model `config` with weights and caches in `dtype`."""

    config: ModelConfig
    dtype: str

    @property
    def weight_bytes(self) -> int:
        """All parameters."""
        return sum(size[_NBYTES] for _, size in self._weights())

    def kv_bytes_per_token(self) -> int:
        """Keys and values that one token adds over all layers."""
        config = self.config
        return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * self._itemsize

    def cache_bytes(self, max_length: int, batch: int, chunk: int) -> int:
        """The static caches of all layers, as `load_model` allocates them."""
        slots = sum(cache_length(window, max_length, chunk) for window in self.config.windows)
        return slots * batch * 2 * self.config.num_key_value_heads * self.config.head_dim * self._itemsize

    def decode_bytes(self, position: int, batch: int = 1) -> int:
        """The least that a decode step of `batch` sequences at `position` must read: weights, keys and values seen.

        Of the experts it counts as many as the batch touches when tokens are routed evenly.
        """
        seen = sum(self._visible(position, window) for window in self.config.windows)
        cache = seen * 2 * self.config.num_key_value_heads * self.config.head_dim * self._itemsize
        return self._active(batch, _NBYTES) + batch * cache

    def prefill_flops(self, tokens: int) -> int:
        """Multiplications and additions for a prompt of `tokens` with the logits of its last token."""
        head = self.config.vocab_size * self.config.hidden_size
        products = 2 * (self._active_parameters(1) - head) * tokens + 2 * head
        pairs = sum(self._visible(position, window) for window in self.config.windows for position in range(tokens))
        return products + 4 * pairs * self.config.num_attention_heads * self.config.head_dim

    @property
    def _itemsize(self) -> int:
        return _ITEMSIZE[self.dtype]

    def _weights(self) -> list[tuple[str, tuple[int, int]]]:
        """The bytes and the number of parameters of every weight; of packed ones, blocks hold two a byte."""
        rows = ARCHITECTURES[self.config.architecture].weights(self.config)
        return [(row.name, self._sizes(row)) for row in rows]

    def _sizes(self, row: Weight) -> tuple[int, int]:
        elements = prod(row.shape)
        if row.packed:
            return elements, 2 * elements if row.name.endswith("_blocks") else 0
        return elements * self._itemsize, elements

    def _active_parameters(self, tokens: int) -> int:
        return self._active(tokens, _PARAMETERS)

    def _active(self, tokens: int, size_of: int) -> int:
        """The bytes or parameters that `tokens` multiply with: their routed experts, the embedding only as a head."""
        total = 0
        for name, size in self._weights():
            if name.endswith("embed_tokens.weight") and not self.config.tie_word_embeddings:
                continue
            total += int(size[size_of] * self._routed_share(name, tokens))
        return total

    def _routed_share(self, name: str, tokens: int) -> float:
        if ".experts." not in name:
            return 1.0
        experts: int = self.config.num_local_experts  # type: ignore[attr-defined]
        active: int = self.config.num_experts_per_tok  # type: ignore[attr-defined]
        return 1.0 - (1.0 - active / experts) ** tokens

    @staticmethod
    def _visible(position: int, window: int | None) -> int:
        return position + 1 if window is None else min(position + 1, window)
