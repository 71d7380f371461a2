"""Charts keep every value on their paper, at its place, under its name."""

from __future__ import annotations

import pytest

from msport.validate.chart import Series, bar_chart, error_chart, row_chart


def test_a_chart_keeps_every_point_on_its_paper() -> None:
    chart = error_chart([Series("x", 3, [0.0, 1e-9, float("inf"), 0.5])], [(1e-2, "limit")], across="position")
    points = [tuple(map(float, point.split(","))) for point in chart.split('points="')[1].split('"')[0].split()]
    assert len(points) == 4
    assert all(0 <= x <= 900 and 0 <= y <= 300 for x, y in points)
    assert points[0][1] > points[3][1] >= points[2][1], "larger errors are drawn higher"


def test_limits_at_one_place_share_a_line_and_those_at_zero_have_none() -> None:
    series = [Series("x", 0, [1e-3, 1e-2])]
    chart = error_chart(series, [(1e-2, "one"), (1e-2, "other"), (0.0, "none")], across="position")
    assert chart.count('class="limit"') == 1
    assert "one, other" in chart
    assert "none" not in chart


def test_every_row_has_its_name_and_the_bad_ones_are_marked() -> None:
    rows = [("q_proj", 2e-6, False), ("a<b", float("inf"), True), ("chosen experts", 0.0, False)]
    chart = row_chart(rows, (1e-4, "departs"), across="error")
    places = [float(part.split('"')[0]) for part in chart.split(' cx="')[1:]]
    assert places[2] < places[0] < places[1], "larger errors are drawn further to the right"
    assert all(0 <= place <= 900 for place in places)
    assert all(name in chart for name in (">q_proj<", ">a&lt;b<", ">chosen experts<"))
    assert chart.count('class="dot bad"') == 1


def test_bars_stand_on_the_axis_and_say_what_they_are() -> None:
    chart = bar_chart([("0", 0.995, "layers.0: 199 of 200 tokens"), ("1", 1.0, "all")], across="layer", floor=0.99)
    heights = [float(part.split('"')[0]) for part in chart.split(' height="')[1:]]
    assert heights[0] == pytest.approx(heights[1] / 2, abs=0.1)
    assert "199 of 200 tokens" in chart
