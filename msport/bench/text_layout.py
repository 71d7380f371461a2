"""Rows of text in columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Row = tuple[str, ...]


def table(rows: Iterable[Row], align: str = "") -> Iterator[str]:
    """Lines of `rows` in columns as wide as needed; `align` holds ``<`` or ``>`` for each column, by default ``<``."""
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = align.ljust(len(widths), "<")
    for row in lines:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
        yield ("  " + "  ".join(cells)).rstrip()


def counted(number: int, noun: str) -> str:
    """``1 run``, ``3 runs``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
