"""Plain text tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def counted(number: int, noun: str) -> str:
    """``1 shard``, ``3 shards``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def table(rows: Sequence[Sequence[str]], align: str) -> Iterator[str]:
    """Lines of `rows` in columns as wide as needed; `align` holds ``<`` or ``>`` for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True))
        yield ("  " + "  ".join(cells)).rstrip()
