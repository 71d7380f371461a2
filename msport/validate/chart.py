"""Charts as inline SVG, drawn with the page's own colours: lines over a logarithmic axis, and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 900, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 14, 46
_MOST_TICKS = 12
_WIDEST_BAR = 44
COLOURS = 8  # .s0 to .s7 in the page's style


@dataclass(frozen=True, slots=True)
class Series:
    """One line or set of dots: `values` at consecutive places from `start` on; None leaves a gap."""

    title: str
    start: int
    values: Sequence[float | None]
    dots: bool = False


@dataclass(frozen=True, slots=True)
class _Axes:
    """Places 0 to `last` across, 10**low to 10**high up; what lies outside is drawn on the edge."""

    last: int
    low: int
    high: int

    def x(self, place: float) -> str:
        return f"{_LEFT + (_WIDTH - _LEFT - _RIGHT) * place / self.last:.1f}"

    def y(self, value: float) -> str:
        exponent = math.log10(value) if 0.0 < value < math.inf else (-math.inf if value <= 0.0 else math.inf)
        share = (min(max(exponent, self.low), self.high) - self.low) / (self.high - self.low)
        return f"{_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share:.1f}"


def error_chart(
    series: Sequence[Series], limit: float, *, across: str, names: Sequence[str] = (), note: str = "tolerance"
) -> str:
    """A ``<figure>`` of `series`, errors, with a dashed line at `limit`, which `note` names.

    `across` says what the places are; `names` label them, numbers do otherwise.
    """
    axes = _axes(series, limit)
    step = max(1, -(-(axes.high - axes.low) // 8))
    marks = [_decade(axes, exponent) for exponent in range(axes.low, axes.high + 1, step)]
    marks += [_tick(axes.x(place), _name(names, place)) for place in _places(axes.last)]
    if limit > 0.0:
        y = axes.y(limit)
        marks.append(f'<line class="limit" {_across(y)}/>')
        marks.append(
            f'<text class="note" x="{_WIDTH - _RIGHT}" y="{y}" dy="-5" text-anchor="end">{escape(note)}</text>'
        )
    drawn = [(_dots if one.dots else _line)(axes, one, number, names) for number, one in enumerate(series)]
    return _figure([*marks, *drawn], across, [one.title for one in series])


def bar_chart(bars: Sequence[tuple[str, float, str]], *, across: str, floor: float = 0.0) -> str:
    """A ``<figure>`` of bars: label, height and what is said of each; heights from `floor` up to the highest."""
    top = max((height for _, height, _ in bars), default=1.0)
    top = top if top > floor else floor + 1.0
    width = (_WIDTH - _LEFT - _RIGHT) / max(1, len(bars))
    span = _HEIGHT - _BOTTOM - _TOP
    marks = []
    for quarter in range(5):
        value = floor + (top - floor) * quarter / 4
        y = f"{_HEIGHT - _BOTTOM - span * quarter / 4:.1f}"
        marks.append(f'<line class="grid" {_across(y)}/>')
        marks.append(f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{_percent(value, top - floor)}</text>')
    for number, (_label, height, said) in enumerate(bars):
        share = max(0.0, height - floor) / (top - floor)
        x, tall, wide = _LEFT + width * (number + 0.5), span * share, min(width * 0.84, _WIDEST_BAR)
        marks.append(
            f'<rect class="bar" x="{x - wide / 2:.1f}" y="{_HEIGHT - _BOTTOM - tall:.1f}"'
            f' width="{wide:.1f}" height="{tall:.1f}"><title>{escape(said)}</title></rect>'
        )
    marks += [_tick(f"{_LEFT + width * (place + 0.5):.1f}", bars[place][0]) for place in _places(len(bars) - 1) if bars]
    return _figure(marks, across, ())


def _axes(series: Sequence[Series], limit: float) -> _Axes:
    values = [value for one in series for value in one.values if value is not None] + [limit]
    exponents = [math.log10(value) for value in values if 0.0 < value < math.inf] or [0.0]
    low = math.floor(min(exponents))
    last = max((one.start + len(one.values) - 1 for one in series), default=1)
    return _Axes(max(1, last), low, max(low + 1, math.ceil(max(exponents) + 0.01)))


def _places(last: int) -> range:
    """Places to label: all of them, or every second, fifth, tenth and so on."""
    step = next(
        step * 10**power for power in range(9) for step in (1, 2, 5) if last / (step * 10**power) <= _MOST_TICKS
    )
    return range(0, last + 1, step)


def _name(names: Sequence[str], place: int) -> str:
    return names[place] if place < len(names) else str(place)


def _percent(value: float, span: float) -> str:
    digits = 0 if span > 0.05 else (1 if span > 0.005 else 2)
    return f"{value:.{digits}%}"


def _decade(axes: _Axes, exponent: int) -> str:
    y = axes.y(10.0**exponent)
    label = f'10<tspan class="power" dy="-5">{exponent}</tspan>'
    return f'<line class="grid" {_across(y)}/><text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{label}</text>'


def _tick(x: str, label: str) -> str:
    return f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{escape(label)}</text>'


def _across(y: str) -> str:
    return f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"'


def _line(axes: _Axes, series: Series, number: int, _names: Sequence[str]) -> str:
    found = [(series.start + i, value) for i, value in enumerate(series.values) if value is not None]
    points = " ".join(f"{axes.x(place)},{axes.y(value)}" for place, value in found)
    title = f"<title>{escape(series.title)}</title>"
    return f'<polyline class="line s{number % COLOURS}" points="{points}">{title}</polyline>'


def _dots(axes: _Axes, series: Series, number: int, names: Sequence[str]) -> str:
    found = [(series.start + i, value) for i, value in enumerate(series.values) if value is not None]
    return "".join(
        f'<circle class="dot s{number % COLOURS}" cx="{axes.x(place)}" cy="{axes.y(value)}" r="3.5">'
        f"<title>{escape(f'{series.title}, {_name(names, place)}: {value:.2e}')}</title></circle>"
        for place, value in found
    )


def _figure(marks: Sequence[str], across: str, titles: Sequence[str]) -> str:
    place = f'x="{(_WIDTH + _LEFT) / 2:.0f}" y="{_HEIGHT - 6}"'
    label = f'<text class="axis" {place} text-anchor="middle">{escape(across)}</text>'
    keys = "".join(
        f'<li><span class="key k{number % COLOURS}"></span>{escape(title)}</li>' for number, title in enumerate(titles)
    )
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    return f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(marks)}{label}</svg>{legend}</figure>'
