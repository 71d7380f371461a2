"""Charts keep every value on their paper, at its place, under its name."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from msport.report.chart import Bin, ChartRow, Mark, Series, bar_chart, distribution, line_chart, row_chart
from msport.report.formatting import number
from msport.report.frame import WIDTH, Point
from msport.report.scale import decades, linear, measured, places


def _errors(values: list[float], limits: list[tuple[float, str]], start: int = 0) -> str:
    points = [Point.single(at, f"position {at}", value) for at, value in enumerate(values, start)]
    y = decades([*values, *(limit for limit, _ in limits)])
    x = places(start + len(values) - 1)
    return line_chart([Series("x", points)], x, y, across="position", up="error", show="{:.2e}".format, limits=limits)


def _numbers(chart: str, attribute: str, kind: str) -> list[float]:
    return [float(each) for each in re.findall(rf'class="{kind}"[^>]* {attribute}="([0-9.-]+)"', chart)]


def test_a_line_keeps_every_point_on_its_paper() -> None:
    chart = _errors([0.0, 1e-9, 0.5, 20.0], [(1e-2, "limit")], start=3)
    (line,) = re.findall(r' d="M([^"]*?)h0"', chart)
    points = [tuple(map(float, point.split())) for point in line.split("L")]
    assert len(points) == 4
    assert all(0 <= x <= WIDTH and 0 <= y <= 300 for x, y in points)
    assert points[0][1] >= points[1][1] > points[2][1] > points[3][1], "larger errors are drawn higher"


def test_what_is_not_finite_breaks_the_line_and_is_red_above_it() -> None:
    chart = _errors([1e-3, float("inf"), 1e-3, float("nan"), float("nan"), 1e-2], [])
    (line,) = re.findall(r' d="([^"]*)"', chart)
    assert line.count("M") == 3
    assert _numbers(chart, "cy", "dot bad") == [32.0] * 3
    assert min(_numbers(chart, "y1", "grid")) > 32.0
    assert "nan" not in line
    ET.fromstring(chart)


def test_limits_at_one_place_share_a_line_and_those_at_zero_have_none() -> None:
    chart = _errors([1e-3, 1e-2], [(1e-2, "one"), (1e-2, "other"), (0.0, "none")])
    assert chart.count('class="limit"') == 1
    assert "one, other" in chart
    assert "none" not in chart


def test_lengths_stand_where_their_logarithm_does_and_their_names_do_not_overlap() -> None:
    lengths = {28: "chinese 28", 31: "english 31", 73: "code 73", 1573: "long context 1573"}
    points = [Point.single(length, name, 1.0) for length, name in lengths.items()]
    x, y = measured((float(length), name) for length, name in lengths.items()), linear(0.0, 1.0)
    chart = line_chart([Series("x", points, dots=True)], x, y, across="tokens", up="ms", show=number)
    first, second, third, last = _numbers(chart, "cx", "dot s0")
    assert second - first < third - second < last - third
    labels = {name: re.findall(rf'x="([0-9.]+)" y="([0-9.]+)"[^>]*>{name}<', chart) for name in lengths.values()}
    (chinese,), (english,), (code,), _ = labels.values()
    assert chinese[1] != english[1], "names that are close stand in two rows"
    assert chinese[1] == code[1]


def test_every_row_has_its_name_and_the_bad_ones_are_marked() -> None:
    errors = {"q_proj": 2e-6, "a<b": float("inf"), "chosen experts": 0.0}
    rows = [ChartRow(name, [Mark(error, name, "bad" if error > 1.0 else "s0")]) for name, error in errors.items()]
    chart = row_chart(rows, decades([2e-6, 1e-4]), across="error", limits=[(1e-4, "departs")])
    good, bad = _numbers(chart, "cx", "dot s0"), _numbers(chart, "cx", "dot bad")
    assert good[1] < good[0] < bad[0], "larger errors are drawn further to the right"
    assert all(0 <= place <= WIDTH for place in good + bad)
    assert all(name in chart for name in (">q_proj<", ">a&lt;b<", ">chosen experts<"))
    assert len(bad) == 1


def test_a_long_name_of_a_row_stays_on_the_paper() -> None:
    title = "transformers float32, batch 1, long context, " * 3
    chart = row_chart([ChartRow(title, [Mark(0.5, "half", "s0", bar=True)])], linear(0.0, 1.0), across="share")
    (x,) = re.findall(r'<text x="([0-9.]+)"[^>]*>transformers', chart)
    assert float(x) < WIDTH / 2
    assert title not in chart


def test_bars_stand_on_the_axis_at_the_height_of_their_value() -> None:
    points = [Point(0.0, "", 1.0, 0.5, 2.0), Point.single(0.0, "199 of 200 tokens", 2.0), None]
    chart = bar_chart(["a\nlong", "b", "c"], [("x", points)], up="tokens/s", show=number)
    low, high = _numbers(chart, "height", "bar s0")
    assert low == pytest.approx(high / 2, abs=0.1)
    assert chart.count('class="mark"') == 1, "only repeats that differ have a whisker"
    assert "199 of 200 tokens: 2" in chart
    assert "x, a, long: 1" in chart


def test_a_drawing_of_few_bars_is_narrow_and_not_stretched() -> None:
    points = [Point.single(0.0, "", 1.0)]
    few, many = (bar_chart(["a"] * n, [("x", points * n)], up="", show=number) for n in (1, 6))
    assert 'viewBox="0 0 320 ' in few
    assert 'style="width:320px;min-width:0"' in few
    assert f'viewBox="0 0 {WIDTH:.0f} ' in many
    assert "style=" not in many


def test_a_band_covers_both_sides_of_zero() -> None:
    rows = [ChartRow("a", [Mark(0.1, "+10.0%", "good", band=0.05)]), ChartRow("b", [Mark(-0.1, "-10.0%", "bad")])]
    chart = row_chart(rows, linear(-0.2, 0.2), across="change")
    (begin,), (width,) = _numbers(chart, "x", "bar noise"), _numbers(chart, "width", "bar noise")
    (better,), (worse,) = _numbers(chart, "cx", "dot good"), _numbers(chart, "cx", "dot bad")
    middle = (better + worse) / 2
    assert begin + width / 2 == pytest.approx(middle, abs=0.2)
    assert worse < begin < middle < begin + width < better


def test_values_without_a_place_on_the_scale_get_a_separate_red_bar() -> None:
    bins = [Bin(-3.0, -2.5, 0.25, "a"), Bin(-2.5, -2.0, 0.25, "b")]
    apart = Bin(0.0, 0.0, 0.5, "half of them", "not finite")
    chart = distribution(bins, places(3), across="x", up="share", apart=apart)
    (height,) = _numbers(chart, "height", "bar bad")
    assert height == pytest.approx(2 * _numbers(chart, "height", "bar s0")[0], abs=0.1)
    assert ">not finite<" in chart
    assert "bar bad" not in distribution(bins, places(3), across="x", up="share")
