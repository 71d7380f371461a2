"""A report passes only if everything that was judged does, and tells the rest in text, JSON and a page."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report.drawings import outside

from msport.report.formatting import display_width
from msport.validate.compare.layers import LayerError, OperationError
from msport.validate.compare.metrics import measure
from msport.validate.compare.results import PromptResult
from msport.validate.compare.routing import RoutingCheck
from msport.validate.compare.weights import TensorCheck
from msport.validate.findings import Setup
from msport.validate.prompts import Prompt
from msport.validate.reference.noise import FIELDS, Noise
from msport.validate.report import Report
from msport.validate.verdict.rules import judge
from msport.validate.views.charts import difference_chart, position_chart
from msport.validate.views.page import render_page
from msport.validate.views.tables import layer_table

SETUP = Setup(
    folder="a<b>-ms",
    architecture="GptOssForCausalLM",
    source="a<b>",
    revision=None,
    checkpoint="0123456789abcdef" * 4,
    reference="a<b>",
    level="logits",
    rule="rounding",
    tolerance=1e-2,
    seed=0,
    date="2026-11-21T08:00:00+00:00",
    versions={
        "msport": "0",
        "python": "3.11",
        "numpy": "1.26",
        "mindspore": "2.10.0",
        "transformers": "4.57.1",
        "torch": "2.13.0",
    },
    device="CPU",
    dtype="float32",
)
SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/validate.schema.json").read_text())
LAYERS = (
    LayerError(0, "embed_tokens", 0.0, 0.0, "random", 3),
    LayerError(1, "layers.0", 1e-6, 5e-7, "random", 3, (OperationError("o_proj", 1e-6, 5e-7, "random", 3),)),
    LayerError(
        2,
        "layers.1",
        0.5,
        0.25,
        "random",
        3,
        (
            OperationError("o_proj", 1e-6, 5e-7, "random", 3),
            OperationError("experts", np.inf, 0.25, "random", 3, "every token, 2 times the reference"),
        ),
        RoutingCheck(tokens=10, agreeing=9, margin=1e-7, near_ties=1, wrong=0),
    ),
)


def _result(name: str = "random", path: str = "prefill", *, wrong: dict[int, float] | None = None) -> PromptResult:
    reference = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    ours = reference * np.float32(1 + 1e-5)
    for token, factor in (wrong or {}).items():
        ours[token] *= np.float32(factor)
    return PromptResult(Prompt(name, (1, 2, 3, 4, 5)), path, 0, measure(reference, ours))


def _report(*results: PromptResult, level: str = "logits", noise: Noise | None = None, **parts: Any) -> Report:
    """Judged by `noise`, or by the tolerance alone."""
    prompts = list(dict.fromkeys(result.prompt for result in results))
    judgement = judge(results, prompts, noise, SETUP.tolerance) if results else None
    failing = () if judgement is None else judgement.failing
    judged = tuple(dataclasses.replace(r, failing=f) for r, f in zip(results, failing, strict=True))
    return Report(dataclasses.replace(SETUP, level=level), judged, judgement, noise, **parts)


def _noise(size: float = 1e-5) -> Noise:
    """What was measured of one prompt of five tokens."""
    return Noise("float32", (np.full((5, len(FIELDS)), size),), (size,) * 3, (0.0,) * 2)


def test_a_report_passes_if_every_token_does() -> None:
    assert _report(_result(), _result("other")).passed


def test_one_token_of_one_prompt_fails_it() -> None:
    report = _report(_result(), _result("other", wrong={3: 1.5}))
    assert not report.passed
    assert report.worst is not None
    assert (report.worst.title, report.worst.worst) == ("other", 3)
    assert "1 of 10 tokens exceed the tolerance 0.01" in str(report)
    assert "'other' at position 3" in str(report)


def test_the_text_of_a_prompt_is_shown_shortened_and_kept_whole() -> None:
    text = "模型移植是否成功,\n" + "token by token " * 20
    result = dataclasses.replace(_result("prompt 1"), prompt=Prompt("prompt 1", (1, 2, 3, 4, 5), text=text))
    report = _report(result)
    (line,) = (line for line in str(report).splitlines() if "模型移植" in line)
    assert line.startswith("prompt 1  模型移植是否成功, token by token")
    assert display_width(line) <= 80
    assert "模型移植是否成功, token by token" in render_page(report)
    assert json.loads(report.to_json())["prompts"][0]["text"] == text


def test_the_date_of_the_run_stands_in_every_rendering() -> None:
    report = _report(_result())
    assert json.loads(report.to_json())["date"] == "2026-11-21T08:00:00+00:00"
    assert "2026-11-21 08:00:00 UTC" in str(report)
    assert "2026-11-21 08:00:00 UTC" in render_page(report)


def test_a_report_of_nothing_does_not_pass() -> None:
    assert not _report().passed
    assert not _report(
        PromptResult(Prompt("empty", ()), "prefill", 0, measure(np.ones((0, 3)), np.ones((0, 3))))
    ).passed
    assert "nothing was compared" in str(_report())


def test_a_report_on_layers_fails_by_a_layer_too() -> None:
    assert _report(_result(), level="logits", layers=LAYERS).passed
    failed = _report(_result(), level="layers", layers=LAYERS, first_departure=2)
    assert not failed.passed
    assert "first to depart: layers.1, experts (not finite): every token, 2 times the reference" in str(failed)
    assert not _report(_result(), level="layers", layers=LAYERS, first_departure=2).passed
    nothing = _report(_result(), level="layers")
    assert not nothing.passed
    assert "FAILED: no layer was compared" in str(nothing)


def test_a_report_says_how_the_error_compares_with_rounding() -> None:
    report = _report(_result(), noise=_noise())
    assert report.passed
    assert (
        "PASSED: within rounding: relative L2 error at most 1.00e-05 over 5 tokens (tolerance 0.01), 1.0 times"
        in str(report)
    )
    document = json.loads(report.to_json())
    assert document["noise"]["tokens"] == [5]
    assert all(check["passed"] for check in document["judgement"]["checks"])
    assert "times what rounding explains" in render_page(report)


def test_an_error_within_the_tolerance_that_rounding_does_not_explain_fails() -> None:
    report = _report(_result(wrong=dict.fromkeys(range(5), 1.003)), noise=_noise())
    assert not report.passed
    assert "FAILED: within 0.01, but 590 times what rounding explains: " in str(report)
    assert "the reference's own noise 1.00e-05; the worst token has 3.01e-03, 'random' at position 0" in str(report)
    assert report.results[0].failed == 5
    assert _report(_result(wrong=dict.fromkeys(range(5), 1.003))).passed, "by the tolerance alone it does"


def test_a_wrong_weight_fails_a_model_whose_logits_agree() -> None:
    wrong = TensorCheck("model.embed_tokens.weight", "copy", 10, different=3)
    report = _report(_result(), noise=_noise(), weights=(TensorCheck("x", "copy", 10), wrong))
    assert not report.passed
    assert "the logits agree to 1.00e-05 within rounding, but 1 of 2 tensors are not" in str(report)
    assert "model.embed_tokens.weight differs in 3 of 10 elements" in str(report)


def test_the_rows_of_a_batch_share_a_line_of_the_table() -> None:
    report = _report(_result(), *(_result(str(row), path="batch") for row in range(3)), noise=None)
    lines = [line for line in str(report).splitlines() if line.startswith(("random", "batch"))]
    assert [line.split()[:4] for line in lines] == [["random", "5", "1.00e-05", "0"], ["batch", "of", "3", "15"]]


def test_a_report_on_weights_fails_by_a_tensor() -> None:
    good, bad = TensorCheck("good", "copy", 10), TensorCheck("bad", "copy", 10, different=1, max_abs=0.5)
    assert _report(level="weights", weights=(good,)).passed
    report = _report(level="weights", weights=(good, bad))
    assert not report.passed
    assert "1 of 2 tensors" in str(report)
    assert "1 of 10" in str(report)
    missing = _report(level="weights", weights=(TensorCheck("x", "copy", 0, fault="is missing"),))
    assert not missing.passed
    assert "is missing\n" in str(missing), "and no distance beside it"


def test_a_fault_of_decoding_alone_is_said_to_be_one() -> None:
    assert "only decoding fails" in str(_report(_result(), _result(path="decode", wrong={0: 2.0})))


def test_a_fault_of_batches_alone_is_said_to_be_one() -> None:
    assert "only batches fail" in str(_report(_result(), _result(path="batch", wrong={0: 2.0})))


def test_the_worst_token_is_shown_with_what_either_side_ranks_first() -> None:
    report = _report(_result(wrong={2: -1.0}))
    (result,) = report.results
    ours, theirs = result.errors.likeliest_ours[2], result.errors.likeliest[2]
    assert f"'random' at position 2, where we rank token {ours} first, the reference {theirs}" in str(report)
    assert ours != theirs
    document = json.loads(report.to_json())["results"][0]
    assert (document["likeliest_ours"][2], document["likeliest"][2]) == (ours, theirs)
    assert f"where both rank token {result.errors.likeliest[1]} first" in str(_report(_result(wrong={1: 2.0})))


def test_weights_of_the_layer_that_departs_are_cleared_or_blamed() -> None:
    failed = _result(wrong={0: 2.0})
    good, bad = TensorCheck("model.layers.1.x", "copy", 10), TensorCheck("model.layers.1.y", "copy", 10, different=3)
    cleared = str(_report(failed, layers=LAYERS, first_departure=2, weights=(good,)))
    assert "the 1 tensors of layers.1 match their source" in cleared
    assert "transform" not in cleared, "a table of what is right would only be in the way"
    blamed = str(_report(failed, layers=LAYERS, first_departure=2, weights=(good, bad)))
    assert "its weights are wrong: model.layers.1.y differs in 3 of 10 elements" in blamed


def test_an_original_that_is_not_finite_is_blamed_and_not_the_port() -> None:
    there = OperationError(
        "q_proj", np.inf, np.inf, "random", 3, "not finite in the reference itself, at 5 of 5 tokens"
    )
    error = LayerError(1, "layers.0", np.inf, np.inf, "random", 3, (there,))
    weights = (TensorCheck("x", "copy", 10),)
    report = _report(_result(wrong={0: np.nan}), layers=(LAYERS[0], error), first_departure=1, weights=weights)
    assert "the original is damaged, or overflows in float32" in str(report)
    assert "match their source" not in str(report)


def test_level_logits_says_how_to_find_the_operation() -> None:
    stream = (OperationError("attention residual", 0.5, 0.25, "random", 3, "every token"),)
    halves = LayerError(1, "layers.0", 0.5, 0.5, "random", 3, stream)
    report = _report(_result(wrong={0: 2.0}), layers=(LAYERS[0], halves), first_departure=1)
    assert "the fault is in the attention; --level layers names the operation" in str(report)


def test_a_drift_that_no_block_shows_alone_is_said_to_be_one_with_the_near_ties_behind_it() -> None:
    ties = RoutingCheck(tokens=10, agreeing=9, margin=1e-7, near_ties=0, wrong=0)
    drifting = LayerError(1, "layers.0", 0.5, 0.1, "random", 3, (), ties)
    text = str(_report(_result(wrong={0: 2.0}), layers=(LAYERS[0], drifting), first_departure=1))
    assert "no operation of it departs alone" in text
    assert "1 token chose other experts" in text
    assert "1.0e-07: a near tie" in text


def test_a_drift_in_a_short_dtype_is_put_down_to_rounding() -> None:
    drifting = LayerError(1, "layers.0", 0.5, 0.1, "random", 3)
    report = _report(_result(wrong={0: 2.0}), layers=(LAYERS[0], drifting), first_departure=1)
    half = dataclasses.replace(report, setup=dataclasses.replace(report.setup, dtype="float16"))
    assert "rounding to float16 adds up along the way" in str(half)
    assert "adds up" not in str(report)


def test_operations_that_agree_are_within_rounding() -> None:
    assert "no layer departs by more than rounding" in str(_report(_result(wrong={0: 2.0}), layers=LAYERS[:2]))


def test_tokens_that_are_not_finite_are_counted() -> None:
    assert "2 of 5 tokens have logits that are not finite" in str(_report(_result(wrong={0: np.nan, 1: np.inf})))


def test_json_is_strict_and_holds_what_the_verdict_rests_on() -> None:
    report = _report(_result(wrong={0: np.nan}), layers=LAYERS, notes=("a note",), seconds={"run model": 1.5})
    document = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert document["passed"] is False
    assert document["schema"] == "msport.validate/5"
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
        _report(_result(wrong={0: np.nan}), layers=LAYERS, first_departure=2, notes=("a",), seconds={"run": 1.5}),
        _report(_result(), _result(path="decode"), _result(path="batch"), rounding=("a line",), peak_bytes=10),
        _report(level="weights", weights=(TensorCheck("bad", "copy", 10, different=1, max_abs=np.inf),)),
        _report(),
    ],
)
def test_json_is_what_its_schema_says(report: Report) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(report.to_json()), SCHEMA)


def test_the_schema_leaves_nothing_open() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(_report(_result()).to_json())
    for change in ({"more": 1}, {"passed": "yes"}, {"level": "guess"}, {"checkpoint": "abc"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **change}, SCHEMA)


class _Outline(HTMLParser):
    """Tags that were opened, and whether each was closed in order."""

    void = ("meta", "line")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_self_contained_and_escaped() -> None:
    page = render_page(_report(_result(wrong={2: np.inf}), _result(path="decode"), layers=LAYERS, first_departure=2))
    outline = _Outline()
    outline.feed(page)
    assert not outline.open
    assert not {"src", "href"} & {name for _, attributes in outline.seen for name in attributes}
    assert "a&lt;b&gt;-ms" in page
    assert "<b>" not in page
    assert sum(tag == "path" for tag, _ in outline.seen) == 2, "the prefill, and the drift by layer"
    assert page.index("FAILED") < page.index("<svg"), "the verdict comes first"
    assert "http" not in page.replace("http-equiv", "")


def test_paths_of_one_prompt_have_one_colour() -> None:
    report = _report(_result(), _result(path="decode"), _result("other"))
    page = position_chart(report)
    assert [part[0] for part in page.split('class="line s')[1:]] == ["0", "1"]
    assert {part[0] for part in page.split('class="dot s')[1:]} == {"0"}
    assert re.findall(r"</span>([^<]*)</li>", page) == ["random", "other"], "the legend has each colour once"


def test_tokens_that_are_not_finite_are_red_above_every_other() -> None:
    whole, lost = (position_chart(_report(_result(wrong=wrong))) for wrong in ({2: 1.5}, {2: np.nan, 3: np.inf}))
    assert "not finite" not in whole
    assert lost.count('class="dot bad"') == lost.count(": not finite") == 2
    heights = [float(height) for height in re.findall(r'class="dot bad" cx="[^"]*" cy="([^"]*)"', lost)]
    ticks = [float(height) for height in re.findall(r'class="grid" x1="74.0" y1="([^"]*)" x2="884.0"', lost)]
    assert ticks
    assert max(heights) < min(ticks)


def test_logits_that_are_not_finite_stand_apart_in_the_histogram() -> None:
    assert "not finite" not in difference_chart(_report(_result()))
    some = difference_chart(_report(_result(wrong={0: np.nan})))
    assert 'class="bar bad"' in some
    assert "not finite: the logits of 1 of 5 tokens" in some
    shares = [float(share) for share in re.findall(r"logits, ([0-9.]+)%", some)]
    assert sum(shares) == pytest.approx(80, abs=0.1), "a fifth of the logits is not finite"
    none = difference_chart(_report(_result(wrong=dict.fromkeys(range(5), np.nan))))
    assert "the logits of 5 of 5 tokens" in none
    assert 'class="bar s0"' not in none, "nothing that differs by a number is drawn"


def test_a_growth_that_is_no_number_is_a_dash_and_a_large_one_has_no_exponent() -> None:
    drifts = (0.0, 1e-6, 2e-6, 0.0246, 1e4, np.inf, np.inf)
    layers = tuple(LayerError(n, f"layers.{n}", drift, drift, "random", 3) for n, drift in enumerate(drifts))
    table = layer_table(_report(_result(), layers=layers))
    assert [row[table.head.index("growth")] for row in table.rows] == [
        "-",
        "-",
        "x2.0",
        "x12,300",
        "x406,504",
        "-",
        "-",
    ]
    assert [row[table.head.index("drift")] for row in table.rows[-2:]] == ["not finite"] * 2


def test_no_text_of_a_picture_leaves_its_paper() -> None:
    lost = _report(_result(wrong={0: np.nan}), _result(path="decode"), layers=LAYERS, first_departure=2)
    assert list(outside(render_page(lost))) == []


def test_no_table_of_a_failure_writes_inf_or_nan() -> None:
    report = _report(_result(wrong={0: np.nan}), layers=LAYERS, first_departure=2)
    cells = [cell for line in str(report).splitlines() for cell in line.split()]
    assert "not finite" in str(report)
    assert not {"inf", "nan", "xinf", "xnan"} & set(cells)


def test_router_agreement_is_drawn_where_it_is_not_whole() -> None:
    whole = RoutingCheck(tokens=10, agreeing=10, margin=0.0, near_ties=0, wrong=0)
    right = LayerError(1, "layers.0", 1e-6, 1e-6, "random", 3, (), whole)
    assert "In every layer all tokens chose the experts of the reference" in render_page(
        _report(_result(), layers=(right,))
    )
    assert "layers.1, 1 of 10 tokens: 10%" in render_page(_report(_result(), layers=LAYERS))


def test_the_table_of_results_fits_a_terminal_of_80_columns_and_the_page_has_all() -> None:
    report = _report(_result("english"), _result("english", "decode"))
    (head,) = (line for line in str(report).splitlines() if line.startswith("prompt"))
    rows = [line for line in str(report).splitlines() if line.startswith(("prompt", "english"))]
    assert len(rows) == 3
    assert max(map(len, rows)) <= 80
    assert "KL mean" not in head
    assert ">KL mean<" in render_page(report)


def test_a_dense_model_has_no_column_of_experts() -> None:
    assert "experts" not in str(_report(_result(), layers=LAYERS[:2]))
    assert "90.00%" in str(_report(_result(), layers=LAYERS))
