"""What a report says, it says in every form."""

from __future__ import annotations

import dataclasses
import json

from msport.report.formatting import display_width
from msport.validate.prompts import Prompt
from msport.validate.views.page import render_page
from validate.made_reports import COST, SETUP, make_report, make_result


def test_the_text_of_a_prompt_is_shown_shortened_and_kept_whole() -> None:
    text = "模型移植是否成功,\n" + "token by token " * 20
    result = dataclasses.replace(make_result("prompt 1"), prompt=Prompt("prompt 1", (1, 2, 3, 4, 5), text=text))
    report = make_report(result)
    (line,) = (line for line in str(report).splitlines() if "模型移植" in line)
    assert line.startswith("prompt 1  模型移植是否成功, token by token")
    assert display_width(line) <= 80
    assert "模型移植是否成功, token by token" in render_page(report)
    assert json.loads(report.to_json())["prompts"][0]["text"] == text


def test_every_view_shows_the_date_of_the_run() -> None:
    report = make_report(make_result())
    assert json.loads(report.to_json())["date"] == "2026-11-21T08:00:00+00:00"
    assert "2026-11-21 08:00:00 UTC" in str(report)
    assert "2026-11-21 08:00:00 UTC" in render_page(report)


def test_every_view_shows_the_cost_of_quantisation_and_its_verdict() -> None:
    report = make_report(make_result(), cost=dataclasses.replace(COST, max_kl=0.1))
    page = render_page(report)
    for view in (str(report), page):
        assert "quantisation costs a mean KL of 2.50e-01 over 10 tokens of text" in view
        assert "perplexity 12.5 instead of 10" in view
        assert "more than --max-kl 0.1" in view
        assert "book.txt" in view
    assert "original&lt;b&gt;" in page
    document = json.loads(report.to_json())
    assert (document["passed"], document["cost"]["max_kl"], document["cost"]["total"]["top1"]) == (False, 0.1, 0.8)


def test_every_view_says_which_weights_are_quantised() -> None:
    setup = dataclasses.replace(SETUP, encodings={"int4 in groups of 32, symmetric": 14, "mxfp4": 1}, own_weights=True)
    report = dataclasses.replace(make_report(make_result()), setup=setup)
    for view in (str(report), render_page(report)):
        assert "14 weights in int4 in groups of 32, symmetric; 1 weight in mxfp4; made from a" in view
        assert "against the same quantised weights in float32" in view.replace("\n ", "")
    assert json.loads(report.to_json())["encodings"] == {"int4 in groups of 32, symmetric": 14, "mxfp4": 1}
