"""The reference for a model that does not fit in memory: Transformers' own layers, with weights read one layer at a
time.

Each module gets its parameters from the checkpoint when it runs, and frees them after. msport's encodings decode packed
experts, because Transformers' own routine would take most of the time; a few rows are compared with it.
"""

from __future__ import annotations

from pathlib import Path

from msport.checkpoint import open_checkpoint
from msport.validate.reference.filling import Parameters, build_empty
from msport.validate.reference.loading import Reference, check_reference_installed, quiet, resolve_math_kernels


def stream_reference(folder: Path, dtype: str = "float32") -> Reference:
    """The model in `folder`; only one module at a time has its parameters in memory, in `dtype`.

    Raises `MissingDependencyError`, `CheckpointError` if a parameter is missing or has another shape, and
    `UnsupportedError` for a model that the config alone does not give.
    """
    check_reference_installed()
    resolve_math_kernels()
    with quiet():
        model = build_empty(folder, dtype, attention="eager")
    return Reference(model, Parameters(open_checkpoint(folder), dtype, reuse=True).provide)
