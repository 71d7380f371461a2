"""What a model costs on this machine: loading, compiling, prefill, decoding, memory, and what the machine could do.

``runner`` takes the request, ``suites`` and ``plan`` turn it into what is measured, ``execution`` carries that out with
what ``measure`` offers, and ``report`` holds the outcome. ``figures`` names each figure and its unit for all views.
Nothing is simulated; only ``measure.transformers_engine`` imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.bench.measure.workload import Workload
    from msport.bench.report import BenchReport
    from msport.bench.runner import benchmark

# Imported when first used: a process that measures what an import takes should not have imported all of this before.
_HOMES = {"BenchReport": "report", "Workload": "measure.workload", "benchmark": "runner"}

__all__ = ["BenchReport", "Workload", "benchmark"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.bench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'msport.bench' has no attribute {name!r}")
