"""Tolerances follow the mantissa."""

from __future__ import annotations

from msport.validate.precision import unit
from msport.validate.verdict.limits import default_tolerance, rounding


def test_a_shorter_mantissa_allows_more_on_either_side() -> None:
    assert default_tolerance("float32") < default_tolerance("float16") < default_tolerance("bfloat16")
    assert rounding("float32") < rounding("float16") < rounding("bfloat16")
    assert default_tolerance("float32", "bfloat16") == default_tolerance("bfloat16")


def test_every_tolerance_is_some_roundings_wide_and_no_more_than_a_tenth() -> None:
    for dtype in ("float32", "float16", "bfloat16"):
        assert 10 * unit(dtype) < default_tolerance(dtype) <= 0.1
