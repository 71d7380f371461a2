"""Key-value caches of fixed size: as long as the context for full attention, a ring buffer for sliding windows."""

from __future__ import annotations

from dataclasses import dataclass

import mindspore as ms
from mindspore import Tensor, nn

from msport.msmodels import ops
from msport.msmodels.layers.parameters import zeros
from msport.sizing.costs import cache_length


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The number of sequences and positions in a model's caches. At most `chunk` tokens are written at a time."""

    batch: int
    max_length: int
    chunk: int
    dtype: ms.Type

    @property
    def context(self) -> int:
        """Number of positions of a full-attention layer."""
        return self.length(None)

    def length(self, window: int | None) -> int:
        """Number of slots of a layer with this window."""
        return cache_length(window, self.max_length, self.chunk)


class KeyValueCache(nn.Cell):
    """Keys and values of one layer, ``[batch * num_key_value_heads * length, head_dim]`` each."""

    def __init__(self, shape: CacheShape, window: int | None, num_key_value_heads: int, head_dim: int) -> None:
        super().__init__()
        rows = shape.batch * num_key_value_heads * shape.length(window)
        self.key = zeros(rows, head_dim, dtype=shape.dtype)
        self.value = zeros(rows, head_dim, dtype=shape.dtype)

    def construct(
        self, query: Tensor, key: Tensor, value: Tensor, cos: Tensor, sin: Tensor, slots: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotates ``query [batch, seq, heads, head_dim]`` and ``key [batch, seq, num_key_value_heads, head_dim]``, and
        writes the key and the value at `slots`; returns the rotated query and both caches.
        """
        return ops.rotate_and_cache(query, key, value, cos, sin, self.key, self.value, slots)
