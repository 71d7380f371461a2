"""From a Hub checkpoint to a MindSpore checkpoint, slab by slab within bounded memory.

``plan`` fixes every byte of the output from headers alone, ``transforms`` defines how each tensor is made, ``execute``
makes them in parallel, ``verify`` checks the result. Neither MindSpore nor torch is imported, so a checkpoint can be
converted on any machine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.convert.conversion import Conversion, convert_checkpoint, prepare, run
    from msport.convert.inspection import Inspection, inspect_path
    from msport.convert.plan import Plan, make_plan
    from msport.convert.tensors import OutputTensor
    from msport.convert.verify import verify_folder

_HOMES = {
    "Conversion": "conversion",
    "Inspection": "inspection",
    "OutputTensor": "tensors",
    "Plan": "plan",
    "convert_checkpoint": "conversion",
    "inspect_path": "inspection",
    "make_plan": "plan",
    "prepare": "conversion",
    "run": "conversion",
    "verify_folder": "verify",
}

__all__ = [
    "Conversion",
    "Inspection",
    "OutputTensor",
    "Plan",
    "convert_checkpoint",
    "inspect_path",
    "make_plan",
    "prepare",
    "run",
    "verify_folder",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.convert.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'msport.convert' has no attribute {name!r}")
