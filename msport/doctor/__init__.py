"""Whether this machine can do the work: versions, device, CANN, memory, disk, compiler, and a small model step.

Everything that could crash or hang runs in a child process with a time limit, and nothing here needs a working
MindSpore: it is there to say what is broken. With a converted checkpoint it also says whether that fits.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.doctor.check import Check, Diagnosis, Status
    from msport.doctor.examination import diagnose
    from msport.doctor.graphs import diagnose_ascend

_HOMES = {
    "Check": "check",
    "Diagnosis": "check",
    "Status": "check",
    "diagnose": "examination",
    "diagnose_ascend": "graphs",
}

__all__ = ["Check", "Diagnosis", "Status", "diagnose", "diagnose_ascend"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.doctor.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'msport.doctor' has no attribute {name!r}")
