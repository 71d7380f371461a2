"""Judges whether a converted model computes the same as the original.

Transformers in float32 is the reference. ``prompts`` chooses inputs that reveal faults, ``reference`` runs PyTorch,
``port`` runs our side, ``compare`` measures errors at three levels (logits, layers, weights), ``verdict`` decides, and
``report`` holds the result. Only ``reference`` imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msport.validate.report import Report
    from msport.validate.runner import validate_model

_HOMES = {"Report": "report", "validate_model": "runner"}

__all__ = ["Report", "validate_model"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"msport.validate.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'msport.validate' has no attribute {name!r}")
