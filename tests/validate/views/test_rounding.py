"""A report says where values were rounded."""

from __future__ import annotations

import pytest

from msport.validate.views.rounding import Dtypes, explain_rounding


@pytest.mark.parametrize(
    ("dtypes", "said"),
    [
        (Dtypes("bfloat16", "bfloat16", "float32", "float32"), "weights: exact, float32 holds every value of bfloat16"),
        (Dtypes("float32", "bfloat16", "float32", "float32"), "weights: rounded from float32 to bfloat16"),
        (Dtypes("bfloat16", "bfloat16", "float16", "float32"), "weights: rounded from bfloat16 to float16"),
    ],
)
def test_rounding_of_weights_is_distinguished_from_that_of_results(dtypes: Dtypes, said: str) -> None:
    lines = explain_rounding(dtypes, 1e-3, [1e-6, 2e-6])
    assert lines[0].startswith(said)
    assert lines[1].startswith(f"compute: every result is rounded to {dtypes.ours}")


def test_what_rounding_does_not_explain_is_said() -> None:
    dtypes = Dtypes("bfloat16", "bfloat16", "float32", "float32")
    assert "should" not in explain_rounding(dtypes, 1e-3, [])[-1]
    assert explain_rounding(dtypes, 0.5, [])[-1].endswith("rounding should keep them below 0.01")
    assert "0.25 times the coarsest" in explain_rounding(Dtypes(*["bfloat16"] * 4), 2.0**-10, [])[-1]
    assert "not finite" in explain_rounding(dtypes, float("inf"), [])[-1]


def test_a_rounded_reference_is_named() -> None:
    lines = explain_rounding(Dtypes("bfloat16", "bfloat16", "float32", "bfloat16"), 1e-3, [])
    assert any("reference: it computes in bfloat16" in line for line in lines)
