"""The precision of the floating-point dtypes."""

from __future__ import annotations

# Bits of the significand, including the implicit one.
SIGNIFICAND = {"float32": 24, "float16": 11, "bfloat16": 8}


def unit(dtype: str) -> float:
    """The largest relative error of rounding to `dtype`."""
    return float(2.0 ** -SIGNIFICAND[dtype])


def holds(wide: str, narrow: str) -> bool:
    """Whether every value of `narrow` is one of `wide`."""
    return wide == narrow or wide == "float32" or narrow == "mxfp4"
