"""Static caches that ReshapeAndCache writes and the fused attention reads in place.

A cache is ``[batch * num_key_value_heads, length, 1, head_dim]``: to ReshapeAndCache, blocks of `length` slots with one
head each; to the attention operators, keys in the order batch, heads, slots. So neither needs a copy.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from msport.msmodels.ops import portable
from msport.msmodels.ops.ascend import signatures

# ReshapeAndCache and the fused attention have no float32.
HALF_DTYPES = (ms.float16, ms.bfloat16)

cache_slots = portable.cache_slots


def cache_shape(batch: int, num_key_value_heads: int, length: int, head_dim: int, dtype: ms.Type) -> tuple[int, ...]:
    """As ``portable.cache_shape``, in four axes where the operators support the dtype."""
    if dtype not in HALF_DTYPES:
        return portable.cache_shape(batch, num_key_value_heads, length, head_dim, dtype)
    return batch * num_key_value_heads, length, 1, head_dim


def update_cache(
    key_cache: Parameter, value_cache: Parameter, slots: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """As ``portable.update_cache``, both in one operator."""
    if key_cache.ndim != 4:
        return portable.update_cache(key_cache, value_cache, slots, key, value)
    rows = (-1, key.shape[-1])
    written = signatures.reshape_and_cache(key.reshape(rows), value.reshape(rows), key_cache, value_cache, slots)
    return ops.depend(key_cache, written), ops.depend(value_cache, written)
