"""Which dtypes hold which, and what a conversion rounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from msport.checkpoint import read_manifest
from msport.convert import convert_checkpoint
from msport.sample import write_sample
from msport.validate.precision import holds_every_value, narrowed_to, weight_dtype


def test_float16_holds_no_bfloat16_and_float32_holds_both() -> None:
    assert holds_every_value("float32", "bfloat16")
    assert holds_every_value("float32", "float16")
    assert not holds_every_value("float16", "bfloat16")
    assert not holds_every_value("bfloat16", "float16")


def test_the_dtype_of_weights_is_that_of_most_of_them(sample: Path) -> None:
    assert weight_dtype(sample) == "bfloat16"


@pytest.mark.parametrize(
    ("shipped", "stored", "narrowed"), [("float32", "bfloat16", "bfloat16"), ("bfloat16", "auto", None)]
)
def test_only_a_conversion_that_lost_digits_has_rounded_weights(
    shipped: str, stored: str, narrowed: str | None, tmp_path: Path
) -> None:
    sample = write_sample("llama", tmp_path / "hub", dtype=shipped, overrides={"num_hidden_layers": 1})
    convert_checkpoint(sample, tmp_path / "ms", dtype=stored)
    assert narrowed_to(sample, read_manifest(tmp_path / "ms")) == narrowed
