"""Charts of figures as SVG: bars and lines over a few sizes, horizontal bars for shares, and dots for changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from msport.report.layout import percent

WIDTH = 860
_HEIGHT = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 16, 18, 48
_ROW = 24
_LABELS = 300
_TICKS = 5
COLOURS = 8  # --s0 to --s7 in the page's style

Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Point:
    """A value between `low` and `high`, which repeats of it reached."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """One colour: a point for each group, None where nothing was measured."""

    title: str
    points: Sequence[Point | None]


@dataclass(frozen=True, slots=True)
class Change:
    """A row of `change_chart`: a change as a share, and the noise on both sides of zero; None: unknown."""

    title: str
    value: float
    noise: float | None


def bar_chart(groups: Sequence[str], series: Sequence[Series], axis: str, show: Format) -> str:
    """A bar for each group and series, whiskers where the repeats differ; `axis` is the unit, `show` writes a value."""
    top, marks = _scale(series, axis, show)
    slot = (WIDTH - _LEFT - _RIGHT) / len(groups)
    width = min(54.0, 0.8 * slot / len(series))
    for place, group in enumerate(groups):
        middle = _LEFT + slot * (place + 0.5)
        marks.append(_below(middle, group))
        for number, one in enumerate(series):
            point = one.points[place]
            if point is None:
                continue
            x, y = middle + (number - len(series) / 2) * width, _up(point.value, top)
            title = escape(f"{one.title}, {group}: {show(point.value)}")
            marks.append(
                f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{width - 2:.1f}" height="{_HEIGHT - _BOTTOM - y:.1f}"'
                f' style="fill:{_colour(number)}"><title>{title}</title></rect>'
            )
            marks.append(_whisker(x + width / 2, point, top))
            if width > 42:
                marks.append(_text(x + width / 2, min(y, _up(point.high, top)) - 4, show(point.value), "middle"))
    return _figure(_HEIGHT, marks, [one.title for one in series])


def line_chart(groups: Sequence[str], series: Sequence[Series], axis: str, show: Format) -> str:
    """A line for each series over `groups`, which stand at equal distances; whiskers where the repeats differ."""
    top, marks = _scale(series, axis, show)
    slot = (WIDTH - _LEFT - _RIGHT) / len(groups)
    places = [_LEFT + slot * (place + 0.5) for place in range(len(groups))]
    marks += [_below(x, group) for x, group in zip(places, groups, strict=True)]
    for number, one in enumerate(series):
        drawn = [(x, group, point) for x, group, point in zip(places, groups, one.points, strict=True) if point]
        corners = " ".join(f"{x:.1f},{_up(point.value, top):.1f}" for x, _, point in drawn)
        marks.append(f'<polyline class="line" style="stroke:{_colour(number)}" points="{corners}"/>')
        for x, group, point in drawn:
            title = escape(f"{one.title}, {group}: {show(point.value)}")
            marks.append(_whisker(x, point, top))
            marks.append(
                f'<circle cx="{x:.1f}" cy="{_up(point.value, top):.1f}" r="4" style="fill:{_colour(number)}">'
                f"<title>{title}</title></circle>"
            )
    return _figure(_HEIGHT, marks, [one.title for one in series])


def share_chart(rows: Sequence[str], series: Sequence[tuple[str, Sequence[float | None]]]) -> str:
    """A horizontal bar for each row and series; the red line is the limit, 100 %."""
    values = [value for _, each in series for value in each if value is not None]
    most = max([1.05, *values])
    height = _ROW * len(rows) * len(series) + _BOTTOM
    room = WIDTH - _LABELS - _RIGHT - 40
    marks = []
    for mark in range(0, int(100 * most) + 1, 25 if most < 2.5 else 100 * math.ceil(most / 10)):
        x = _LABELS + room * mark / 100 / most
        marks.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - _BOTTOM + 4}"/>')
        marks.append(_text(x, height - _BOTTOM + 20, f"{mark} %", "middle"))
    x = _LABELS + room / most
    marks.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{height - _BOTTOM + 4}"/>')
    for place, row in enumerate(rows):
        y = 4 + _ROW * len(series) * place
        marks.append(_text(_LABELS - 8, y + _ROW * len(series) / 2 + 4, row, "end"))
        for number, (title, each) in enumerate(series):
            value = each[place]
            if value is None:
                continue
            length = room * value / most
            marks.append(
                f'<rect x="{_LABELS}" y="{y + _ROW * number + 3:.1f}" width="{length:.1f}" height="{_ROW - 6}"'
                f' style="fill:{_colour(number)}"><title>{escape(f"{row}, {title}: {value:.1%}")}</title></rect>'
            )
            marks.append(_text(_LABELS + length + 5, y + _ROW * number + 16, percent(value), "start"))
    return _figure(height, marks, [title for title, _ in series])


def change_chart(changes: Sequence[Change]) -> str:
    """A dot for each change, to the right where it is for the better; the band around zero is noise."""
    noises = [each.noise or 0.0 for each in changes]
    # A band may go beyond the edge, so that one wild figure does not hide the others.
    largest = max([0.02, 1.5 * float(np.median(noises)), *(1.1 * abs(each.value) for each in changes)])
    height, middle = _ROW * len(changes) + _BOTTOM, _LABELS + (WIDTH - _LABELS - _RIGHT) / 2
    scale = (WIDTH - _LABELS - _RIGHT - 60) / 2 / largest
    marks = [f'<line class="mark" x1="{middle}" x2="{middle}" y1="4" y2="{height - _BOTTOM + 4}"/>']
    for share in (-largest, -largest / 2, 0.0, largest / 2, largest):
        marks.append(_text(middle + share * scale, height - _BOTTOM + 20, f"{share:+.1%}" if share else "0", "middle"))
    for place, each in enumerate(changes):
        y = 4 + _ROW * place + _ROW / 2
        marks.append(_text(_LABELS - 8, y + 4, each.title, "end"))
        noisy = each.noise is None or abs(each.value) <= each.noise
        if each.noise:
            band = min(each.noise, largest) * scale
            marks.append(
                f'<rect class="noise" x="{middle - band:.1f}" y="{y - 7:.1f}" width="{2 * band:.1f}" height="14"/>'
            )
        colour = "soft" if noisy else "good" if each.value > 0 else "bad"
        x = middle + each.value * scale
        title = f"<title>{escape(each.title)}: {each.value:+.1%}</title>"
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" style="fill:var(--{colour})">{title}</circle>')
    return _figure(height, marks)


def _scale(series: Sequence[Series], axis: str, show: Format) -> tuple[float, list[str]]:
    """The value at the top of the axis, and its grid."""
    highest = max((point.high for one in series for point in one.points if point), default=1.0)
    step = _round_step(1.08 * highest / _TICKS)
    top = step * math.ceil(1.08 * highest / step)
    marks = [_text(4, 12, axis, "start")]
    for value in _steps(step, top):
        y = _up(value, top)
        marks.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(_text(_LEFT - 8, y + 4, show(value), "end"))
    return top, marks


def _steps(step: float, top: float) -> Iterator[float]:
    return (step * number for number in range(round(top / step) + 1))


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is at least `least`."""
    if least <= 0.0:
        return 1.0
    power: float = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * 0.999)


def _up(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP - 8) * min(max(value, 0.0), top) / top


def _whisker(x: float, point: Point, top: float) -> str:
    if point.high <= point.low:
        return ""
    low, high = _up(point.low, top), _up(point.high, top)
    return f'<path class="mark" d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"/>'


def _below(x: float, label: str) -> str:
    """Each line of `label` below the other."""
    lines = label.split("\n")
    return "".join(_text(x, _HEIGHT - _BOTTOM + 14 + 13 * row, line, "middle") for row, line in enumerate(lines))


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _figure(height: float, marks: Sequence[str], titles: Sequence[str] = ()) -> str:
    keys = "".join(
        f'<li><span class="key" style="background:{_colour(number)}"></span>{escape(title)}</li>'
        for number, title in enumerate(titles)
    )
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    svg = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{"".join(marks)}</svg>'
    return f"<figure>{svg}{legend}</figure>"


def _colour(number: int) -> str:
    return f"var(--s{number % COLOURS})"
