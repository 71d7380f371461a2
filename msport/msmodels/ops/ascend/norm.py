"""Normalisation by RmsNorm and AddRmsNorm."""

from __future__ import annotations

from mindspore import Tensor

from msport.msmodels.ops.ascend import signatures


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """As ``portable.rms_norm``. If the weight has a wider dtype (Gemma's 1 + w, float32), the sum uses it."""
    if x.dtype == weight.dtype:
        return signatures.rms_norm(x, weight, epsilon)
    return signatures.rms_norm(x.astype(weight.dtype), weight, epsilon).astype(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """As ``portable.add_rms_norm``."""
    if x.dtype == weight.dtype:
        return signatures.add_rms_norm(x, residual, weight, epsilon)
    # The sum is rounded to the dtype of the residual stream before it is normalised, as in the reference.
    total = x + residual
    return rms_norm(total, weight, epsilon), total
