"""msport ports open language models to MindSpore: convert, load, validate, benchmark.

The four functions below and the errors that they raise are the whole public API. The functions are imported at first
use, so ``import msport`` is fast, and a machine without MindSpore can still convert.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msport.errors import (
    CheckpointError,
    ConfigError,
    HubError,
    MissingDependencyError,
    MsportError,
    OutputError,
    UnsupportedError,
    UsageError,
)

__version__ = "0.1.0"

if TYPE_CHECKING:
    from msport.bench import benchmark
    from msport.convert import convert_checkpoint
    from msport.msmodels import load_model
    from msport.validate import validate_model

_HOMES = {
    "benchmark": "msport.bench",
    "convert_checkpoint": "msport.convert",
    "load_model": "msport.msmodels",
    "validate_model": "msport.validate",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "HubError",
    "MissingDependencyError",
    "MsportError",
    "OutputError",
    "UnsupportedError",
    "UsageError",
    "__version__",
    "benchmark",
    "convert_checkpoint",
    "load_model",
    "validate_model",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'msport' has no attribute {name!r}")
