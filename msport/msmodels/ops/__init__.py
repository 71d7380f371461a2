"""The operators that models are written in: one meaning, one implementation per kind of device.

A layer calls ``ops.rms_norm``, ``ops.attention``, ``ops.experts``... ``portable`` defines what each means and runs
anywhere; a device's fused forms stand beside it under the same signatures. Graphs resolve these names when they are
compiled. ``MSPORT_OPS=portable`` forces the definition, to tell a kernel's fault from a model's.

The names are the process's, the choice is a model's: `Graphs` makes its model's operators the current ones before it
compiles, so that models with different operators live in one process.
"""

from __future__ import annotations

import os
from importlib import import_module

from msport.errors import UsageError
from msport.msmodels import chips
from msport.msmodels.ops.portable import (
    add_rms_norm,
    apply_rotary,
    arrange_gate_up,
    attention,
    attention_mask,
    cache_slots,
    clamped_swiglu,
    embedding,
    experts,
    gelu_tanh,
    linear,
    packed_experts,
    rms_norm,
    silu,
    soft_cap,
    softmax_top_k,
    swiglu,
    top_k_softmax,
    update_cache,
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

# Device target to the module of its operators; a device without an entry gets the definitions.
_IMPLEMENTATIONS = {"CPU": "cpu", "Ascend": "ascend"}
_NAMES = ("portable", "cpu", "ascend")


def bind(device: str) -> str:
    """Makes the names of this package those of the operators for `device`; returns the implementation's name.

    Raises `UsageError` if ``MSPORT_OPS`` names none.
    """
    name = os.environ.get("MSPORT_OPS") or default(device)
    if name not in _NAMES:
        raise UsageError(f"MSPORT_OPS={name}: no such operators; choose one of: {', '.join(_NAMES)}")
    use(name)
    return name


def use(name: str) -> None:
    """Makes the names of this package those of the implementation `name`, for every graph compiled from now on."""
    module = import_module(f"{__name__}.{name}")
    # The graph compiler reads a module's dictionary and calls no __getattr__: the names must really be there.
    globals().update({operator: getattr(module, operator) for operator in __all__})


def default(device: str) -> str:
    """The implementation for `device` where ``MSPORT_OPS`` is not set."""
    if device == "Ascend" and not chips.has_fused_operators(chips.soc_version()):
        return "portable"
    return _IMPLEMENTATIONS.get(device, "portable")
