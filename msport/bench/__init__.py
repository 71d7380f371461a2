"""Measures a model on this machine (loading, compiling, prefill, decoding, memory) and the limits of the machine.

``runner`` takes the request, ``suites`` and ``plan`` turn it into workloads, ``execution`` carries them out with the
functions of ``measure``, and ``report`` holds the results. ``figures`` names each figure and its unit for all views.
Nothing is simulated. Only ``measure.transformers_engine`` imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.bench.measure.workload import Workload
    from msport.bench.report import BenchReport
    from msport.bench.runner import benchmark

# Imported at first use: a process that measures the time of an import must not import all of this before.
_HOMES = {"BenchReport": "report", "Workload": "measure.workload", "benchmark": "runner"}

__all__ = ["BenchReport", "Workload", "benchmark"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.bench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'msport.bench' has no attribute {name!r}")
