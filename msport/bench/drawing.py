"""Figures of a benchmark as texts with units, and as what charts are drawn from."""

from __future__ import annotations

from collections.abc import Sequence

from msport.bench.figures import KINDS, Cell
from msport.report.chart import bar_chart
from msport.report.frame import Point
from msport.report.layout import number, percent
from msport.report.scale import Format, linear
from msport.sizing.units import format_size


def show_bytes(value: float) -> str:
    return format_size(round(value))


def show_milliseconds(seconds: float) -> str:
    return number(1e3 * seconds)


def axis_of(name: str) -> tuple[str, Format]:
    """The unit of the figure `name` on an axis, and how a value is written there."""
    unit = KINDS[name].unit
    if unit == "s":
        return "milliseconds", show_milliseconds
    return ("bytes", show_bytes) if unit == "B" else (unit, number)


def value_text(name: str, value: float) -> str:
    """A value of the figure `name` with its unit."""
    unit = KINDS[name].unit
    if unit == "B":
        return show_bytes(value)
    if unit == "s":
        return f"{value:.2f} s" if value >= 1.0 else f"{show_milliseconds(value)} ms"
    return f"{number(value)} {unit}" if unit else percent(value)


def point_of(cell: Cell | None, name: str, at: float = 0.0, title: str = "") -> Point | None:
    """The figure `name` of `cell`; None where it was not measured."""
    figure = None if cell is None else cell.figures.get(name)
    return None if figure is None else Point(at, title, figure.value, figure.low, figure.high)


def bars(groups: Sequence[str], series: Sequence[tuple[str, Sequence[Point | None]]], up: str, show: Format) -> str:
    """A chart of bars from zero up to the highest repeat."""
    highest = max((point.high for _, points in series for point in points if point), default=1.0)
    return bar_chart(groups, series, linear(0.0, 1.05 * highest, show), up=up, show=show)
