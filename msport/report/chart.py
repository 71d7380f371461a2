"""Charts as inline SVG: lines over a scale, bars in groups, distributions, and rows of marks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from msport.report import svg
from msport.report.formatting import exact_percent, shortened
from msport.report.frame import BOTTOM, LEFT, LINE, RIGHT, TOP, WIDTH, Frame, Limit, Point, distinct, width_of
from msport.report.scale import Format, Scale, linear, places

_ROW = 25.0
_WIDEST_BAR, _WIDEST_SLOT = 54.0, 230.0
_LONGEST_TITLE = 52
_APART = 100.0  # the width for a separate bar


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one colour, drawn as a `line`, as `dots`, or both. `colour` None means the next colour of the page."""

    title: str
    points: Sequence[Point]
    line: bool = True
    dots: bool = False
    colour: int | None = None


@dataclass(frozen=True, slots=True)
class Bin:
    """A bar of a distribution, from `low` to `high`; a separate bar has its `title` below."""

    low: float
    high: float
    value: float
    hover: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A dot in a row, or a `bar`. `kind` is its class; `note` is written beside it; `band` is drawn around zero."""

    value: float
    hover: str
    kind: str
    bar: bool = False
    note: str = ""
    band: float = 0.0


@dataclass(frozen=True, slots=True)
class ChartRow:
    """A row of `marks` with its `title`, which is red if the row is `bad`."""

    title: str
    marks: Sequence[Mark]
    bad: bool = False


def line_chart(
    series: Sequence[Series], x: Scale, y: Scale, *, across: str, up: str, show: Format, limits: Sequence[Limit] = ()
) -> str:
    """Lines and dots over `x`, and dashed lines at `limits`. Values that are not finite are red, at the top.

    The legend has the first series of each colour.
    `across` and `up` name the axes with their units; `show` writes a value.
    """
    lost = any(not math.isfinite(point.value) for one in series for point in one.points)
    frame = Frame(x, y, across, up, lane=lost)
    drawn: list[str] = []
    keys: dict[int, str] = {}
    for number, one in enumerate(series):
        colour = number if one.colour is None else one.colour
        drawn += _of_series(frame, one, svg.colour(colour), show)
        keys.setdefault(colour, svg.key(svg.colour(colour), one.title, dot=not one.line))
    return frame.figure([*drawn, *frame.limits(limits)], keys.values())


def bar_chart(
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[Point | None]]],
    *,
    up: str,
    show: Format,
    across: str = "",
) -> str:
    """A bar from zero for each of `groups` and `series`, with whiskers if repeats differ.

    The name of a group may have several lines. None means a value that was not measured.
    """
    highest = max((point.high for _, points in series for point in points if point), default=1.0)
    slot = min(_WIDEST_SLOT, (WIDTH - LEFT - RIGHT) / len(groups))
    width = LEFT + slot * len(groups) + RIGHT  # a chart of few groups fits on a phone
    rows = max(label.count("\n") + 1 for label in groups)
    y = linear(0.0, 1.05 * highest, show)
    frame = Frame(Scale(0.0, len(groups), ()), y, across, up, width=width, rows=rows)
    drawn = []
    for value, label in places(len(groups) - 1, groups).ticks:
        for row, written in enumerate(label.split("\n")):
            drawn.append(svg.text(LEFT + slot * (value + 0.5), BOTTOM + 17 + LINE * row, written))
    wide = min(_WIDEST_BAR, 0.8 * slot / len(series))
    for number, (title, points) in enumerate(series):
        for place, (group, point) in enumerate(zip(groups, points, strict=True)):
            if point is not None:
                left = LEFT + slot * (place + 0.5) + (number - len(series) / 2) * wide
                hover = point.name or f"{title}, {', '.join(group.splitlines())}"
                drawn += _of_bar(frame, left, wide, point, svg.colour(number), hover, show)
    keys = [svg.key(svg.colour(number), title) for number, (title, _) in enumerate(series)]
    return frame.figure(drawn, keys if len(keys) > 1 else ())


def distribution(bins: Sequence[Bin], x: Scale, *, across: str, up: str, apart: Bin | None = None) -> str:
    """Adjacent bars of shares, and separate red bars (`apart`) for values without a place on the scale."""
    highest = max((each.value for each in (*bins, *([apart] if apart else ()))), default=0.0)
    frame = Frame(x, linear(0.0, highest, exact_percent), across, up, right=RIGHT + (_APART if apart else 0.0))
    drawn = []
    for each in bins:
        left, right, top = frame.place(each.low), frame.place(each.high), frame.height(each.value)
        drawn.append(svg.bar("s0", left + 0.5, top, right - left - 1, BOTTOM - top, each.hover))
    if apart is not None:
        middle, top = WIDTH - RIGHT - _APART / 2, frame.height(apart.value)
        drawn.append(svg.bar("bad", middle - 20, top, 40, BOTTOM - top, apart.hover))
        drawn.append(svg.text(middle, BOTTOM + 17, apart.title, kind="note"))
    return frame.figure(drawn)


def row_chart(
    rows: Sequence[ChartRow],
    x: Scale,
    *,
    across: str,
    limits: Sequence[Limit] = (),
    keys: Sequence[tuple[str, str]] = (),
) -> str:
    """Named rows, each with its marks; `keys` are the kinds of marks and their meaning."""
    titles = [shortened(row.title, _LONGEST_TITLE) for row in rows]
    left = 20 + max(map(width_of, titles))
    heights = [_ROW * max(1, sum(mark.bar for mark in row.marks)) for row in rows]
    above = TOP if limits else TOP / 2
    bottom, room = above + sum(heights), WIDTH - left - 5 * RIGHT

    def at(value: float) -> float:
        return left + room * x.place(value)

    drawn = []
    for value, label in x.ticks:
        drawn.append(svg.line("grid", at(value), above, at(value), bottom))
        drawn.append(svg.text(at(value), bottom + 18, label))
    for value, note in distinct(limits):
        drawn.append(svg.line("limit", at(value), TOP - 6, at(value), bottom))
        drawn.append(svg.text(at(value), TOP - 11, note, kind="note"))
    top = above
    for row, title, height in zip(rows, titles, heights, strict=True):
        drawn.append(svg.text(left - 12, top + height / 2 + 4, title, "end", "note" if row.bad else ""))
        for number, mark in enumerate(row.marks):
            drawn += _of_row(mark, at, left, top + (_ROW * (number + 0.5) if mark.bar else height / 2))
        top += height
    drawn.append(svg.text(left + room / 2, bottom + 42, across, kind="axis"))
    return svg.figure(WIDTH, bottom + 48, drawn, across, [svg.key(kind, title) for kind, title in keys])


def _of_series(frame: Frame, series: Series, kind: str, show: Format) -> Iterator[str]:
    runs = [(finite, list(run)) for finite, run in groupby(series.points, lambda point: math.isfinite(point.value))]
    if series.line:
        pieces = [[(frame.place(p.at), frame.height(p.value)) for p in run] for finite, run in runs if finite]
        yield svg.path(kind, pieces, series.title)
    for finite, run in runs:
        for point in run if series.dots or not finite else ():
            x, hover = frame.place(point.at), f"{series.title}, {point.name}: {show(point.value)}"
            yield from frame.whisker(x, point)
            yield svg.circle(kind if finite else "bad", x, frame.height(point.value), hover)


def _of_bar(
    frame: Frame, left: float, width: float, point: Point, kind: str, hover: str, show: Format
) -> Iterator[str]:
    top, value = frame.height(point.value), show(point.value)
    yield svg.bar(kind, left + 1, top, width - 2, BOTTOM - top, f"{hover}: {value}")
    yield from frame.whisker(left + width / 2, point)
    if width_of(value) <= width:
        yield svg.text(left + width / 2, frame.height(point.high) - 5, value)


def _of_row(mark: Mark, at: Callable[[float], float], left: float, middle: float) -> Iterator[str]:
    x = at(mark.value)
    if mark.band:
        begin = at(-mark.band)
        yield svg.bar("noise", begin, middle - 7, at(mark.band) - begin, 14, "noise")
    if mark.bar:
        yield svg.bar(mark.kind, left, middle - 9, x - left, 18, mark.hover)
    else:
        yield svg.circle(mark.kind, x, middle, mark.hover)
    if mark.note:
        yield svg.text(x + (6 if mark.bar else 10), middle + 4, mark.note, "start")
