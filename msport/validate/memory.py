"""Whether a model fits in memory."""

from __future__ import annotations

from math import prod
from pathlib import Path

from msport.architectures import ARCHITECTURES, ModelConfig
from msport.checkpoint import Manifest, open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, FLOAT16, FLOAT32
from msport.sizing.free import available_memory
from msport.validate.precision import holds

_ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
# Dtypes whose values may be rounded when stored in another dtype.
_ROUNDED = (FLOAT32, FLOAT16, BFLOAT16, FLOAT8_E4M3FN)
# Memory besides the weights: caches, activations, the graph compiler.
_SLACK_BYTES = 2 * 10**9


def weight_nbytes(config: ModelConfig, dtype: str) -> int:
    """Bytes of all weights of `config` in `dtype`; packed experts count with their packed size."""
    weights = ARCHITECTURES[config.architecture].weights(config)
    return sum(prod(weight.shape) * (1 if weight.packed else _ITEMSIZE[dtype]) for weight in weights)


def too_large(nbytes: int, available: int | None = None) -> bool:
    """Whether `nbytes` bytes of weights do not fit in `available` bytes (None: what is free now).

    The two sides are in memory one after the other, so `nbytes` is that of the larger one.
    """
    available = available_memory() if available is None else available
    return nbytes + _SLACK_BYTES > available


def weight_dtype(folder: Path) -> str:
    """The floating-point dtype of most weights in `folder`; bfloat16 if there is none."""
    elements: dict[str, int] = {}
    with open_checkpoint(folder) as checkpoint:
        for tensor in checkpoint.tensors.values():
            if tensor.dtype.name in _ITEMSIZE:
                elements[tensor.dtype.name] = elements.get(tensor.dtype.name, 0) + prod(tensor.shape)
    return max(elements, key=lambda name: elements[name], default="bfloat16")


def narrowed_to(source: Path, manifest: Manifest) -> str | None:
    """The dtype to which the conversion of `source` rounded weights; None if it kept every value.

    MXFP4 does not count as a floating-point dtype here, because bfloat16 holds its values exactly.
    """
    stored = {record.dtype.name for record in manifest.tensors.values()}
    with open_checkpoint(source) as checkpoint:
        found = {tensor.dtype for tensor in checkpoint.tensors.values() if tensor.dtype in _ROUNDED}
    kept = all(any(holds(name, dtype.name) for name in stored) for dtype in found)
    return None if kept else manifest.dtype
