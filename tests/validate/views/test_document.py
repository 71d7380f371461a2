"""A report as JSON is strict, and what its schema says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.report import Report
from validate.made_reports import COST, LAYERS, make_report, make_result

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/validate.schema.json").read_text(encoding="utf-8"))


def test_json_is_strict_and_holds_what_the_verdict_rests_on() -> None:
    report = make_report(make_result(wrong={0: np.nan}), layers=LAYERS, notes=("a note",), seconds={"run model": 1.5})
    document = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert document["passed"] is False
    assert document["schema"] == "msport.validate/6"
    assert document["prompts"] == [{"name": "random", "text": None, "ids": [1, 2, 3, 4, 5]}]
    (result,) = document["results"]
    assert result["relative_l2"][0] is None
    assert result["token_passed"] == [False, True, True, True, True]
    assert document["versions"]["transformers"] == "4.57.1"
    assert {"checkpoint", "device", "dtype", "seed", "date", "tolerance", "max_length"} <= document.keys()
    assert document["layers"][2]["relative_l2_max"] == 0.5
    assert document["layers"][2]["operations"][1]["relative_l2_max"] is None
    assert sum(result["differences"]) == 4 * 16, "the logits of the token that is not finite differ by no number"


@pytest.mark.parametrize(
    "report",
    [
        make_report(
            make_result(wrong={0: np.nan}), layers=LAYERS, first_departure=2, notes=("a",), seconds={"run": 1.5}
        ),
        make_report(
            make_result(), make_result(path="decode"), make_result(path="batch"), rounding=("a line",), peak_bytes=10
        ),
        make_report(level="weights", weights=(TensorCheck("bad", "copy", 10, different=1, max_abs=np.inf),)),
        make_report(make_result(), cost=dataclasses.replace(COST, max_kl=0.1)),
        make_report(make_result(), cost=COST),
        make_report(),
    ],
)
def test_json_is_what_its_schema_says(report: Report) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(report.to_json()), SCHEMA)


def test_the_schema_leaves_nothing_open() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(make_report(make_result()).to_json())
    for change in ({"more": 1}, {"passed": "yes"}, {"level": "guess"}, {"checkpoint": "abc"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **change}, SCHEMA)
