"""The charts of a report show every token and every logit, those that are not finite too."""

from __future__ import annotations

import re

import numpy as np
import pytest

from msport.validate.views.charts import difference_chart, position_chart
from validate.made_reports import make_report, make_result


def test_paths_of_one_prompt_have_one_colour() -> None:
    report = make_report(make_result(), make_result(path="decode"), make_result("other"))
    page = position_chart(report)
    assert [part[0] for part in page.split('class="line s')[1:]] == ["0", "1"]
    assert {part[0] for part in page.split('class="dot s')[1:]} == {"0"}
    assert re.findall(r"</span>([^<]*)</li>", page) == ["random", "other"], "the legend has each colour once"


def test_tokens_that_are_not_finite_are_red_above_every_other() -> None:
    whole, lost = (
        position_chart(make_report(make_result(wrong=wrong))) for wrong in ({2: 1.5}, {2: np.nan, 3: np.inf})
    )
    assert "not finite" not in whole
    assert lost.count('class="dot bad"') == lost.count(": not finite") == 2
    heights = [float(height) for height in re.findall(r'class="dot bad" cx="[^"]*" cy="([^"]*)"', lost)]
    ticks = [float(height) for height in re.findall(r'class="grid" x1="74.0" y1="([^"]*)" x2="884.0"', lost)]
    assert ticks
    assert max(heights) < min(ticks)


def test_logits_that_are_not_finite_stand_apart_in_the_histogram() -> None:
    assert "not finite" not in difference_chart(make_report(make_result()))
    some = difference_chart(make_report(make_result(wrong={0: np.nan})))
    assert 'class="bar bad"' in some
    assert "not finite: the logits of 1 of 5 tokens" in some
    shares = [float(share) for share in re.findall(r"logits, ([0-9.]+)%", some)]
    assert sum(shares) == pytest.approx(80, abs=0.1), "a fifth of the logits is not finite"
    none = difference_chart(make_report(make_result(wrong=dict.fromkeys(range(5), np.nan))))
    assert "the logits of 5 of 5 tokens" in none
    assert 'class="bar s0"' not in none, "nothing that differs by a number is drawn"
