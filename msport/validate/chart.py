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

# Of charts with a row for each value: where names end, and how tall rows are.
_NAMES, _ROW = 236, 26

# A limit and what it is called.
Limit = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Series:
    """One line or set of dots: `values` at consecutive places from `start` on; None leaves a gap.

    `colour` is a number of the page's colours, None the next one.
    """

    title: str
    start: int
    values: Sequence[float | None]
    dots: bool = False
    colour: int | None = None


@dataclass(frozen=True, slots=True)
class _Axes:
    """Places 0 to `last` across, 10**low to 10**high up; what lies outside is drawn on the edge."""

    last: int
    low: int
    high: int

    def x(self, place: float) -> str:
        return f"{_LEFT + (_WIDTH - _LEFT - _RIGHT) * place / self.last:.1f}"

    def y(self, value: float) -> str:
        return f"{_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * _share(value, self.low, self.high):.1f}"


def error_chart(series: Sequence[Series], limits: Sequence[Limit], *, across: str, names: Sequence[str] = ()) -> str:
    """A ``<figure>`` of `series`, errors, with a dashed line at each of `limits`.

    `across` says what the places are; `names` label them, numbers do otherwise.
    """
    axes = _axes(series, limits)
    step = max(1, -(-(axes.high - axes.low) // 8))
    marks = [_decade(axes, exponent) for exponent in range(axes.low, axes.high + 1, step)]
    marks += [_tick(axes.x(place), _name(names, place)) for place in _places(axes.last)]
    for limit, note in _drawn(limits):
        y = axes.y(limit)
        marks.append(f'<line class="limit" {_across(y)}/>')
        marks.append(
            f'<text class="note" x="{_WIDTH - _RIGHT}" y="{y}" dy="-5" text-anchor="end">{escape(note)}</text>'
        )
    colours = [(number if one.colour is None else one.colour) % COLOURS for number, one in enumerate(series)]
    coloured = list(zip(series, colours, strict=True))
    drawn = [(_dots if one.dots else _line)(axes, one, colour, names) for one, colour in coloured]
    return _figure([*marks, *drawn], across, [_key(one, colour) for one, colour in coloured])


def row_chart(rows: Sequence[tuple[str, float, bool]], limit: Limit, *, across: str) -> str:
    """A ``<figure>`` of named errors one below the other, those that are bad in red, with a dashed line at `limit`."""
    low, high = _decades([value for _, value, _ in rows] + [limit[0]])
    bottom = _TOP + _ROW * len(rows)

    def x(value: float) -> str:
        return f"{_NAMES + (_WIDTH - _NAMES - _RIGHT) * _share(value, low, high):.1f}"

    marks = []
    for exponent in range(low, high + 1):
        at = x(10.0**exponent)
        marks.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
        marks.append(f'<text x="{at}" y="{bottom + 18}" text-anchor="middle">{_power(exponent)}</text>')
    for value, note in _drawn([limit]):
        at = x(value)
        marks.append(f'<line class="limit" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>')
        marks.append(f'<text class="note" x="{at}" y="{_TOP}" dx="5" dy="9">{escape(note)}</text>')
    for number, (name, value, bad) in enumerate(rows):
        y, kind = _TOP + _ROW * (number + 0.5), ' class="note"' if bad else ""
        marks.append(f'<text{kind} x="{_NAMES - 12}" y="{y}" dy="4" text-anchor="end">{escape(name)}</text>')
        marks.append(
            f'<circle class="dot {"bad" if bad else "s0"}" cx="{x(value)}" cy="{y}" r="4.5">'
            f"<title>{escape(f'{name}: {value:.2e}')}</title></circle>"
        )
    return _figure(marks, across, (), bottom + _BOTTOM)


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


def _axes(series: Sequence[Series], limits: Sequence[Limit]) -> _Axes:
    values = [value for one in series for value in one.values if value is not None]
    low, high = _decades(values + [limit for limit, _ in limits])
    last = max((one.start + len(one.values) - 1 for one in series), default=1)
    return _Axes(max(1, last), low, high)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten that hold all of `values` that have a logarithm."""
    exponents = [math.log10(value) for value in values if 0.0 < value < math.inf] or [0.0]
    low = math.floor(min(exponents))
    return low, max(low + 1, math.ceil(max(exponents) + 0.01))


def _share(value: float, low: int, high: int) -> float:
    """Where `value` lies between 10**low, 0, and 10**high, 1; what lies outside is put on the edge."""
    exponent = math.log10(value) if 0.0 < value < math.inf else (-math.inf if value <= 0.0 else math.inf)
    return (min(max(exponent, low), high) - low) / (high - low)


def _drawn(limits: Sequence[Limit]) -> list[Limit]:
    """The limits that have a place on a logarithmic axis; those at one place share a line."""
    values = dict.fromkeys(limit for limit, _ in limits if limit > 0.0)
    return [(value, ", ".join(note for limit, note in limits if limit == value)) for value in values]


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
    label = f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end">{_power(exponent)}</text>'
    return f'<line class="grid" {_across(y)}/>{label}'


def _power(exponent: int) -> str:
    return f'10<tspan class="power" dy="-5">{exponent}</tspan>'


def _tick(x: str, label: str) -> str:
    return f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{escape(label)}</text>'


def _across(y: str) -> str:
    return f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"'


def _line(axes: _Axes, series: Series, colour: int, _names: Sequence[str]) -> str:
    found = [(series.start + i, value) for i, value in enumerate(series.values) if value is not None]
    points = " ".join(f"{axes.x(place)},{axes.y(value)}" for place, value in found)
    title = f"<title>{escape(series.title)}</title>"
    return f'<polyline class="line s{colour}" points="{points}">{title}</polyline>'


def _dots(axes: _Axes, series: Series, colour: int, names: Sequence[str]) -> str:
    found = [(series.start + i, value) for i, value in enumerate(series.values) if value is not None]
    return "".join(
        f'<circle class="dot s{colour}" cx="{axes.x(place)}" cy="{axes.y(value)}" r="3.5">'
        f"<title>{escape(f'{series.title}, {_name(names, place)}: {value:.2e}')}</title></circle>"
        for place, value in found
    )


def _key(series: Series, colour: int) -> str:
    kind = "key round" if series.dots else "key"
    return f'<li><span class="{kind} k{colour}"></span>{escape(series.title)}</li>'


def _figure(marks: Sequence[str], across: str, keys: Sequence[str], height: int = _HEIGHT) -> str:
    place = f'x="{(_WIDTH + _LEFT) / 2:.0f}" y="{height - 6}"'
    label = f'<text class="axis" {place} text-anchor="middle">{escape(across)}</text>'
    legend = f'<ul class="legend">{"".join(keys)}</ul>' if keys else ""
    drawing = (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(across)}">{"".join(marks)}{label}</svg>'
    )
    return f"<figure>{drawing}{legend}</figure>"
