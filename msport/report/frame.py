"""The frame of a chart: two axes with their ticks, and the place of values between them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from msport.report import svg
from msport.report.formatting import display_width
from msport.report.scale import Scale

WIDTH = svg.WIDTH
LEFT, RIGHT, TOP = 74.0, 16.0, 26.0
LINE = 15.0  # from one line of text to the next
BOTTOM = 272.0
_LANE = 24.0  # at the top, for values that are not finite
_CHARACTER = 6.6

# A limit and its name.
Limit = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Point:
    """A value at a place on the x axis, which has a `name`. `low` and `high` are the ends of its whisker."""

    at: float
    name: str
    value: float
    low: float
    high: float

    @classmethod
    def single(cls, at: float, name: str, value: float) -> Point:
        """A point without a whisker."""
        return cls(at, name, value, value, value)


@dataclass(frozen=True, slots=True)
class Frame:
    """A chart over the scales `x` and `y`; `across` and `up` name the axes with their units.

    `lane`: reserves a place at the top for values that are not finite. `rows` is the least number of text lines below
    the axis.
    """

    x: Scale
    y: Scale
    across: str
    up: str
    lane: bool = False
    width: float = WIDTH
    right: float = RIGHT
    rows: int = 1

    def figure(self, drawn: Iterable[str], keys: Iterable[str] = ()) -> str:
        """The chart: the axes, the elements in `drawn`, and a legend of `keys`."""
        label = f"{self.up}, by {self.across}" if self.across else self.up
        return svg.figure(self.width, self._height, [*self._axes(), *drawn], label, keys)

    def place(self, value: float) -> float:
        """The distance of `value` on the scale `x` from the left edge."""
        return LEFT + (self.width - LEFT - self.right) * self.x.place(value)

    def height(self, value: float) -> float:
        """The distance of `value` on the scale `y` from the top edge; a value that is not finite is in the lane."""
        if not math.isfinite(value):
            return TOP + 6
        top = TOP + _LANE * self.lane
        return BOTTOM - (BOTTOM - top) * self.y.place(value)

    @property
    def _height(self) -> float:
        rows = max([self.rows, *(row + 1 for _, _, row in self._labels())])
        return BOTTOM + LINE * rows + (26 if self.across else 8)

    def _axes(self) -> Iterator[str]:
        """Lines and labels of both axes."""
        for value, label in self.y.ticks:
            yield svg.line("grid", LEFT, self.height(value), self.width - RIGHT, self.height(value))
            yield svg.text(LEFT - 8, self.height(value) + 4, label, "end")
        for at, label, row in self._labels():
            yield svg.line("grid", at, BOTTOM, at, BOTTOM + 5 + LINE * row)
            inside = min(at, self.width - width_of(label) / 2)
            yield svg.text(inside, BOTTOM + 17 + LINE * row, label)
        if self.lane:
            yield svg.text(LEFT - 8, TOP + 10, "not finite", "end", "note")
        yield svg.text(4, 12, self.up, "start", "axis")
        yield svg.text((LEFT + self.width - self.right) / 2, self._height - 6, self.across, kind="axis")

    def _labels(self) -> list[tuple[float, str, int]]:
        """The place, text and row of each tick of the x axis, so that no labels overlap."""
        ends: list[float] = []
        placed = []
        for value, label in sorted(self.x.ticks):
            at, half = self.place(value), width_of(label) / 2
            row = next((row for row, end in enumerate(ends) if end < at - half), len(ends))
            ends[row : row + 1] = [at + half + 8]
            placed.append((at, label, row))
        return placed

    def limits(self, limits: Sequence[Limit]) -> Iterator[str]:
        """A dashed line at each of `limits`, with its name."""
        for value, note in distinct(limits):
            yield svg.line("limit", LEFT, self.height(value), WIDTH - RIGHT, self.height(value))
            yield svg.text(WIDTH - RIGHT, self.height(value) - 5, note, "end", "note")

    def whisker(self, x: float, point: Point) -> Iterator[str]:
        """A whisker from the lowest to the highest repeat of `point`, if they differ."""
        if point.high > point.low:
            yield svg.whisker(x, self.height(point.low), self.height(point.high))


def distinct(limits: Sequence[Limit]) -> list[Limit]:
    """The limits above zero; limits with the same value share a line."""
    values = dict.fromkeys(value for value, _ in limits if value > 0.0)
    return [(value, ", ".join(note for limit, note in limits if limit == value)) for value in values]


def width_of(label: str) -> float:
    """The approximate width of the widest line of `label`."""
    return _CHARACTER * max(map(display_width, label.split("\n")))
