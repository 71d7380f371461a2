"""Errors by position as an SVG line chart with a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 860, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 10, 10, 30
_TICKS = 4
_COLOURS = ("#0b6bcb", "#c2410c", "#15803d", "#7c3aed", "#b45309", "#0e7490", "#be185d", "#4d7c0f")


@dataclass(frozen=True, slots=True)
class Series:
    """One line: `values` at consecutive positions from `start` on."""

    title: str
    start: int
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Axes:
    """Positions 0 to `last` across, 10**low to 10**high up; what lies outside is drawn on the edge."""

    last: int
    low: int
    high: int

    def x(self, position: float) -> str:
        return f"{_LEFT + (_WIDTH - _LEFT - _RIGHT) * position / self.last:.1f}"

    def y(self, value: float) -> str:
        exponent = math.log10(value) if 0.0 < value < math.inf else (-math.inf if value <= 0.0 else math.inf)
        share = (min(max(exponent, self.low), self.high) - self.low) / (self.high - self.low)
        return f"{_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * share:.1f}"


def error_chart(series: Sequence[Series], limit: float) -> str:
    """An ``<svg>`` of `series` and a dashed line at `limit`, and a legend below it."""
    axes = _axes(series, limit)
    marks = [_decade(axes, exponent) for exponent in range(axes.low, axes.high + 1)]
    marks += [_tick(axes, axes.last * tick // _TICKS) for tick in range(_TICKS + 1)]
    if limit > 0.0:
        marks.append(f'<line class="limit" {_across(axes.y(limit))}/>')
    lines = [_line(axes, one, _colour(number)) for number, one in enumerate(series)]
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(marks + lines)}</svg>'
    return f"{svg}\n<p>{_legend(series)}</p>"


def _axes(series: Sequence[Series], limit: float) -> _Axes:
    values = [value for one in series for value in one.values] + [limit]
    exponents = [math.log10(value) for value in values if 0.0 < value < math.inf] or [0.0]
    low = math.floor(min(exponents))
    last = max((one.start + len(one.values) - 1 for one in series), default=1)
    return _Axes(max(1, last), low, max(low + 1, math.ceil(max(exponents))))


def _decade(axes: _Axes, exponent: int) -> str:
    y = axes.y(10.0**exponent)
    return (
        f'<line class="grid" {_across(y)}/><text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">1e{exponent}</text>'
    )


def _tick(axes: _Axes, position: int) -> str:
    return f'<text x="{axes.x(position)}" y="{_HEIGHT - 10}" text-anchor="middle">{position}</text>'


def _across(y: str) -> str:
    return f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"'


def _line(axes: _Axes, series: Series, colour: str) -> str:
    points = " ".join(f"{axes.x(series.start + i)},{axes.y(value)}" for i, value in enumerate(series.values))
    title = f"<title>{escape(series.title)}</title>"
    return f'<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{points}">{title}</polyline>'


def _legend(series: Sequence[Series]) -> str:
    keys = (
        f'<span style="color:{_colour(number)}">&#9644;</span> {escape(one.title)}' for number, one in enumerate(series)
    )
    return " &nbsp; ".join((*keys, "dashed: the tolerance"))


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
