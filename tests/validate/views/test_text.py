"""What a report says, it says in every form."""

from __future__ import annotations

import dataclasses
import json

from msport.report.formatting import display_width
from msport.validate.prompts import Prompt
from msport.validate.views.page import render_page
from validate.made_reports import make_report, make_result


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
