"""Static caches, written by InplaceIndexCopy. The layout is the portable one, which the attention operators can
read directly.
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, ops

from msport.msmodels.ops.ascend import signatures


def update_cache(
    key_cache: Parameter, value_cache: Parameter, slots: Tensor, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """As ``portable.update_cache``."""
    rows = (-1, key.shape[-1])
    keys = signatures.index_copy(key_cache, slots, key.reshape(rows))
    values = signatures.index_copy(value_cache, slots, value.reshape(rows))
    return ops.depend(key_cache, keys), ops.depend(value_cache, values)
