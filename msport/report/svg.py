"""SVG elements in the colours of the page's style, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

WIDTH = 900.0  # the width of a full-width drawing
COLOURS = 8  # the classes s0 to s7 of the style


def colour(number: int) -> str:
    """The class of the `number`-th series."""
    return f"s{number % COLOURS}"


def text(x: float, y: float, written: str, anchor: str = "middle", kind: str = "") -> str:
    """Text; `anchor` is the part of `written` that is at `x`: ``start``, ``middle`` or ``end``."""
    return f'<text{_class(kind)} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(written)}</text>'


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    """A line of the class `kind`."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(kind: str, pieces: Sequence[Sequence[tuple[float, float]]], hover: str) -> str:
    """A line for each of `pieces`; a piece of one point looks like a dot."""
    drawn = "".join("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in piece) + "h0" for piece in pieces)
    return f'<path class="line {kind}" d="{drawn}">{_title(hover)}</path>'


def bar(kind: str, x: float, y: float, width: float, height: float, hover: str) -> str:
    """A bar of the class `kind`, with `hover` as its tooltip."""
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="bar {kind}" {size}>{_title(hover)}</rect>'


def circle(kind: str, x: float, y: float, hover: str) -> str:
    """A dot of the class `kind`, with `hover` as its tooltip."""
    return f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4">{_title(hover)}</circle>'


def whisker(x: float, low: float, high: float) -> str:
    """A vertical line from `low` to `high`, with a stroke at both ends."""
    return f'<path class="mark" d="M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {low:.1f}h8M{x - 4:.1f} {high:.1f}h8"/>'


def key(kind: str, title: str, dot: bool = False) -> str:
    """An entry of a figure's legend."""
    shape = "key round" if dot else "key"
    return f'<li><span class="{shape} {kind}"></span>{escape(title)}</li>'


def figure(width: float, height: float, marks: Iterable[str], label: str, keys: Iterable[str] = ()) -> str:
    """The drawing with the alternative text `label` and a legend of `keys`; a narrow drawing is not stretched."""
    kind, size = "", ""
    if width < WIDTH:
        kind, size = ' class="narrow"', f' style="width:{width:.0f}px;min-width:0"'
    listed = "".join(keys)
    legend = f'<ul class="legend">{listed}</ul>' if listed else ""
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}"{size}>'
    return f'<figure{kind}><div class="wide">{head}{"".join(marks)}</svg></div>{legend}</figure>'


def _title(hover: str) -> str:
    return f"<title>{escape(hover)}</title>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
