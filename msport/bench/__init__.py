"""What a model costs on this machine: loading, compiling, prefill, decoding, memory, and what the machine could do.

``workload`` says what is run and ``loop`` runs it on any engine; ``subject`` (msport) and ``baseline`` (Transformers)
are the engines, each in a process of its own; ``limits`` measures the machine, ``runner`` puts the processes in order,
and ``report`` holds what was measured. Nothing is simulated; torch is imported by ``baseline`` alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.bench.report import BenchReport
    from msport.bench.runner import benchmark
    from msport.bench.workload import Workload

_HOMES = {"BenchReport": "report", "Workload": "workload", "benchmark": "runner"}

__all__ = ["BenchReport", "Workload", "benchmark"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.bench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'msport.bench' has no attribute {name!r}")
