"""Ascend's fused operators, for the 910B and later; the same names and meanings as ``ops.portable``.

Nothing here was ever run on an NPU. What was checked without one: MindSpore's front end accepts the graphs of every
family (``msport doctor --ascend``), and the code around each operator, with the operator's documented meaning in its
place, gives what the portable form gives. See ``docs/ascend.md``.

The 910A has no fused attention and no grouped matrix product (CANN's documents list them for Atlas A2 and later), so
`ops.bind` gives it the portable operators.
"""

from __future__ import annotations

from msport.msmodels.ops.ascend.activation import arrange_gate_up, clamped_swiglu, swiglu
from msport.msmodels.ops.ascend.attention import attention, attention_mask
from msport.msmodels.ops.ascend.cache import update_cache
from msport.msmodels.ops.ascend.experts import experts, softmax_top_k
from msport.msmodels.ops.ascend.norm import add_rms_norm, rms_norm
from msport.msmodels.ops.ascend.rotary import apply_rotary
from msport.msmodels.ops.portable import (
    cache_slots,
    embedding,
    gelu_tanh,
    linear,
    packed_experts,
    silu,
    soft_cap,
    top_k_softmax,
)

__all__ = [
    "add_rms_norm",
    "apply_rotary",
    "arrange_gate_up",
    "attention",
    "attention_mask",
    "cache_slots",
    "clamped_swiglu",
    "embedding",
    "experts",
    "gelu_tanh",
    "linear",
    "packed_experts",
    "rms_norm",
    "silu",
    "soft_cap",
    "softmax_top_k",
    "swiglu",
    "top_k_softmax",
    "update_cache",
]
