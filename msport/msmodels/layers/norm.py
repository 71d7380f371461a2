"""Root mean square normalisation, https://arxiv.org/abs/1910.07467."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn

from msport.msmodels import ops
from msport.msmodels.layers.parameters import weight


class RMSNorm(nn.Cell):
    """Normalises the last axis, of length `size`, and multiplies by the weight, or with `unit_offset` by 1 + the
    weight.
    """

    def __init__(self, size: int, epsilon: float, *, dtype: ms.Type, unit_offset: bool = False) -> None:
        super().__init__()
        self.weight = weight(size, dtype=dtype)
        self.epsilon = epsilon
        self.unit_offset = unit_offset

    def construct(self, x: Tensor) -> Tensor:
        return ops.rms_norm(x, self.scale(), self.epsilon)

    def add(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the normalised ``x + residual``, and the sum itself."""
        return ops.add_rms_norm(x, residual, self.scale(), self.epsilon)

    def scale(self) -> Tensor:
        """The factor of the normalised values, in float32 if 1 is added."""
        if self.unit_offset:
            return self.weight.astype(ms.float32) + 1
        return self.weight
