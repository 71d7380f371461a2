"""Ascend's fused operators, for the 910B and later, with the names and definitions of ``ops.portable``.

This code was never run on an NPU. These checks ran without one: MindSpore's front end accepts the graphs of every
family (``msport doctor --ascend``); and if each operator is replaced by its documented meaning, the code around it
gives the same result as the portable form. See ``docs/ascend.md``.

The 910A has no fused attention and no grouped matrix product (CANN's documents list them for Atlas A2 and later), so
`ops.bind` gives it the portable operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms

from msport.msmodels.ops.ascend.activation import arrange_gate_up, clamped_swiglu, swiglu
from msport.msmodels.ops.ascend.attention import attention, attention_mask
from msport.msmodels.ops.ascend.cache import update_cache
from msport.msmodels.ops.ascend.experts import experts, softmax_top_k
from msport.msmodels.ops.ascend.norm import add_rms_norm, rms_norm
from msport.msmodels.ops.ascend.rotary import apply_rotary

__all__ = [
    "add_rms_norm",
    "apply_rotary",
    "arrange_gate_up",
    "attention",
    "attention_mask",
    "clamped_swiglu",
    "experts",
    "rms_norm",
    "softmax_top_k",
    "swiglu",
    "update_cache",
]


def fused(dtype: ms.Type) -> Mapping[str, Callable[..., Any]]:
    """The operators of this module, by name; each handles `dtype` itself."""
    return {name: globals()[name] for name in __all__}
