"""Tables for a terminal and a page."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import compress

from msport.report.formatting import display_width

Row = tuple[str, ...]

INDENT = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """`rows` of cells below `head`; a cell may have several lines.

    `align` holds ``<`` for each column of words and ``>`` for each column of numbers; missing columns are numbers.
    `classes` are the styles of the rows on a page, such as ``bad``; empty: no styles.
    """

    head: Row
    rows: Sequence[Row]
    align: str = "<"
    classes: Sequence[str] = ()

    def without(self, titles: Collection[str]) -> Table:
        """The table without the columns with these titles."""
        return self._keep([title not in titles for title in self.head])

    def without_empty(self) -> Table:
        """The table without empty columns."""
        return self._keep([any(row[number] for row in self.rows) for number in range(len(self.head))])

    def lines(self, indent: str = "") -> Iterator[str]:
        """The lines of the table for a terminal."""
        return columns([self.head, *self.rows], self._alignment, indent)

    def html(self) -> str:
        """The table as HTML."""
        classes = [f' class="{name}"' if name else "" for name in self.classes] or [""] * len(self.rows)
        head = f"<thead><tr>{self._cells(self.head, 'th')}</tr></thead>"
        rows = zip(classes, self.rows, strict=True)
        body = "".join(f"<tr{style}>{self._cells(row, 'td')}</tr>" for style, row in rows)
        return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'

    @property
    def _alignment(self) -> str:
        return self.align.ljust(len(self.head), ">")

    def _cells(self, row: Row, tag: str) -> str:
        words = (' class="word"' if side == "<" else "" for side in self._alignment)
        return "".join(f"<{tag}{word}>{escape(cell)}</{tag}>" for cell, word in zip(row, words, strict=True))

    def _keep(self, kept: Sequence[bool]) -> Table:
        head, *rows = (tuple(compress(row, kept)) for row in (self.head, *self.rows))
        return replace(self, head=head, rows=rows, align="".join(compress(self._alignment, kept)))


def columns(rows: Sequence[Sequence[str]], align: str = "", indent: str = INDENT) -> Iterator[str]:
    """Lines of `rows`, with columns as wide as needed. `align` holds ``<`` (default) or ``>`` for each column.

    A cell may have several lines; the last lines of the cells are aligned.
    """
    lines = [line for row in rows for line in _lines(row)]
    widths = [max(map(display_width, column)) for column in zip(*lines, strict=True)]
    sides = align.ljust(len(widths), "<")
    for row in lines:
        cells = (_padded(cell, side, width) for cell, side, width in zip(row, sides, widths, strict=True))
        yield (indent + "  ".join(cells)).rstrip()


def _lines(row: Sequence[str]) -> Iterator[Sequence[str]]:
    cells = [cell.split("\n") for cell in row]
    depth = max(map(len, cells))
    return zip(*([""] * (depth - len(cell)) + cell for cell in cells), strict=True)


def _padded(cell: str, side: str, width: int) -> str:
    space = " " * (width - display_width(cell))
    return cell + space if side == "<" else space + cell
