"""The operators that models use: one definition, and one implementation per kind of device.

A layer calls ``ops.rms_norm``, ``ops.attention``, ``ops.experts``... ``portable`` defines what each computes and runs
anywhere. The fused forms of a device have the same signatures. Graphs resolve these names when they are compiled.
``MSPORT_OPS=portable`` forces the definitions, to find out whether a kernel or a model is wrong.

The names belong to the process, but each model chooses its operators: `Graphs` makes them current before it compiles.
So models with different operators can share a process.
"""

from __future__ import annotations

import os
from importlib import import_module

import mindspore as ms

from msport.errors import UsageError
from msport.msmodels import chips
from msport.msmodels.ops import portable
from msport.msmodels.ops.portable import *  # noqa: F403 (the list of operators is in portable)
from msport.native import library

# Maps a device target to the module of its operators; other devices use the definitions.
_IMPLEMENTATIONS = {"CPU": "cpu", "Ascend": "ascend"}
_NAMES = ("portable", "cpu", "ascend")


def bind(device: str, dtype: ms.Type) -> str:
    """Binds the names of this package to the operators for a model of `dtype` on `device`.

    Returns the implementation's name. Raises `UsageError` if ``MSPORT_OPS`` names an unknown one.
    """
    name = choose(device)
    use(name, dtype)
    return name


def choose(device: str) -> str:
    """The implementation for `device`. Raises `UsageError` if ``MSPORT_OPS`` names an unknown one."""
    name = os.environ.get("MSPORT_OPS") or default(device)
    if name not in _NAMES:
        raise UsageError(f"MSPORT_OPS={name}: no such operators; choose one of: {', '.join(_NAMES)}")
    return name


def use(name: str, dtype: ms.Type) -> None:
    """Binds the names of this package to the implementation `name` for a model of `dtype`, for every graph compiled
    from now on.

    If the implementation lacks an operator, the portable one is used.
    """
    fused = {} if name == "portable" else import_module(f"{__name__}.{name}").fused(dtype)
    # The graph compiler reads a module's dictionary and does not call __getattr__, so the names must exist.
    globals().update({operator: fused.get(operator, getattr(portable, operator)) for operator in portable.__all__})


def default(device: str) -> str:
    """The implementation for `device` if ``MSPORT_OPS`` is not set."""
    if device == "Ascend" and not chips.has_fused_operators(chips.soc_version()):
        return "portable"
    return _IMPLEMENTATIONS.get(device, "portable")


def products(name: str) -> str:
    """Whose matrix products the implementation `name` uses, as `kept_encodings` wants it: without a C++ compiler those
    of ``cpu`` are portable.
    """
    return "portable" if name == "cpu" and library() is None else name
