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

import mindspore as ms

from msport.errors import UsageError
from msport.msmodels import chips
from msport.msmodels.ops import portable
from msport.msmodels.ops.portable import *  # noqa: F403 (every operator, and no list of them beside portable's own)

# Device target to the module of its operators; a device without an entry gets the definitions.
_IMPLEMENTATIONS = {"CPU": "cpu", "Ascend": "ascend"}
_NAMES = ("portable", "cpu", "ascend")


def bind(device: str, dtype: ms.Type) -> str:
    """Makes the names of this package those of the operators for a model of `dtype` on `device`.

    Returns the implementation's name. Raises `UsageError` if ``MSPORT_OPS`` names none.
    """
    name = os.environ.get("MSPORT_OPS") or default(device)
    if name not in _NAMES:
        raise UsageError(f"MSPORT_OPS={name}: no such operators; choose one of: {', '.join(_NAMES)}")
    use(name, dtype)
    return name


def use(name: str, dtype: ms.Type) -> None:
    """Makes the names of this package those of `name` for a model of `dtype`, in every graph compiled from now on.

    An operator that the implementation does not have is the portable one.
    """
    fused = {} if name == "portable" else import_module(f"{__name__}.{name}").fused(dtype)
    # The graph compiler reads a module's dictionary and calls no __getattr__: the names must really be there.
    globals().update({operator: fused.get(operator, getattr(portable, operator)) for operator in portable.__all__})


def default(device: str) -> str:
    """The implementation for `device` where ``MSPORT_OPS`` is not set."""
    if device == "Ascend" and not chips.has_fused_operators(chips.soc_version()):
        return "portable"
    return _IMPLEMENTATIONS.get(device, "portable")
