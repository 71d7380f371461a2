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


def percent(share: float) -> str:
    """Whole percents, and tenths where there is less than one."""
    return f"{share:.1%}" if share < 0.0095 else f"{share:.0%}"


def counted(number: int, noun: str, several: str | None = None) -> str:
    """``1 run``, ``3 runs``; `several` is the plural that is not made with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {several or f'{noun}s'}"
