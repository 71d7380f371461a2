"""Root mean square normalisation, https://arxiv.org/abs/1910.07467."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from msport.msmodels import ops
from msport.msmodels.layers.parameters import weight


class RMSNorm(nn.Cell):
    """Normalises the last axis, of length `size`; its scale is the weight, or with `unit_offset` 1 + the weight."""

    def __init__(self, size: int, epsilon: float, *, dtype: ms.Type, unit_offset: bool = False) -> None:
        super().__init__()
        self.weight = weight(size, dtype=dtype)
        self.epsilon = epsilon
        self.unit_offset = unit_offset

    def construct(self, x: Tensor) -> Tensor:
        if self.unit_offset:
            return ops.rms_norm(x, self.weight.astype(ms.float32) + 1, self.epsilon)
        return ops.rms_norm(x, self.weight, self.epsilon)
