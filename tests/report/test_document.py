"""What a report holds becomes strict JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pytest

from msport.report.document import json_values, to_json, utc_now


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    errors: object


def test_dataclasses_arrays_and_numbers_that_are_not_finite_have_their_values() -> None:
    part = _Part("a", (np.float64("nan"), float("inf"), np.array([[1, 2]]), np.array([True]), np.float32(0.5), None))
    expected = {"parts": [{"name": "a", "errors": [None, None, [[1, 2]], [True], 0.5, None]}]}
    assert json_values({"parts": [part]}) == expected
    assert json.loads(to_json(json_values({"parts": [part]}))) == expected


def test_a_text_is_kept_as_it_is_and_a_number_that_is_not_finite_refused() -> None:
    assert to_json({"text": "模型"}) == '{"text": "模型"}'
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"error": float("nan")})


def test_the_moment_is_in_utc() -> None:
    assert datetime.fromisoformat(utc_now()).utcoffset() == timedelta(0)
