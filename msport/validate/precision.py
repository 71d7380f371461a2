"""The precision of the floating-point dtypes: of each, and of the weights of a checkpoint and its conversion."""

from __future__ import annotations

from math import prod
from pathlib import Path

from msport.checkpoint import Manifest, open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, FLOAT16, FLOAT32

# Bits of the significand, including the implicit one.
SIGNIFICAND = {"float32": 24, "float16": 11, "bfloat16": 8}
# Dtypes whose values may be rounded when stored in another dtype.
_ROUNDED = (FLOAT32, FLOAT16, BFLOAT16, FLOAT8_E4M3FN)


def unit(dtype: str) -> float:
    """The largest relative error of rounding to `dtype`."""
    return float(2.0 ** -SIGNIFICAND[dtype])


def holds_every_value(wide: str, narrow: str) -> bool:
    """Whether every value of `narrow` is one of `wide`."""
    return wide == narrow or wide == "float32" or narrow == "mxfp4"


def weight_dtype(folder: Path) -> str:
    """The floating-point dtype of most weights in `folder`; bfloat16 if there is none."""
    elements: dict[str, int] = {}
    with open_checkpoint(folder) as checkpoint:
        for tensor in checkpoint.tensors.values():
            if tensor.dtype in (FLOAT32, FLOAT16, BFLOAT16):
                elements[tensor.dtype.name] = elements.get(tensor.dtype.name, 0) + prod(tensor.shape)
    return max(elements, key=lambda name: elements[name], default="bfloat16")


def narrowed_to(source: Path, manifest: Manifest) -> str | None:
    """The dtype to which the conversion of `source` rounded weights; None if it kept every value.

    MXFP4 does not count as a floating-point dtype here, because bfloat16 holds its values exactly.
    """
    stored = {record.dtype.name for record in manifest.tensors.values()}
    with open_checkpoint(source) as checkpoint:
        found = {tensor.dtype for tensor in checkpoint.tensors.values() if tensor.dtype in _ROUNDED}
    kept = all(any(holds_every_value(name, dtype.name) for name in stored) for dtype in found)
    return None if kept else manifest.dtype
