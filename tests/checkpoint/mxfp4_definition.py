"""What MXFP4 means, value by value, to hold the package's decoding to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, DType, cast

Array = NDArray[Any]

_E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def decoded(blocks: Array, scales: Array, dtype: DType = FLOAT32) -> Array:
    """Blocks ``[..., rows, groups, 16]`` and scales ``[..., rows, groups]`` as ``[..., rows, 32 * groups]``.

    Source: OCP Microscaling Formats (MX) 1.0. The low nibble is the even element.
    """
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*scales.shape, 32)
    exact = np.ldexp(_E2M1[codes], scales[..., None].astype(np.int32) - 127)
    values = exact.reshape(*scales.shape[:-1], 32 * scales.shape[-1]).astype(
        FLOAT32.storage if dtype == BFLOAT16 else dtype.storage
    )
    return cast(values, FLOAT32, BFLOAT16) if dtype == BFLOAT16 else values
