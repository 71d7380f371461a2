"""Judges whether a converted model computes the same as the original.

Transformers in float32 is the reference. A run goes one way: ``request`` holds the arguments, ``prompts`` chooses
inputs that reveal faults, ``reference`` runs PyTorch, ``port`` runs our side, ``compare`` measures errors at three
levels (logits, layers, weights), ``verdict`` decides, and ``views`` shows the report. Only ``reference`` imports torch.
"""

from __future__ import annotations

from msport.validate.report import Report
from msport.validate.runner import validate_model

__all__ = ["Report", "validate_model"]
