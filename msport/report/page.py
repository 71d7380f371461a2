"""What a self-contained page is made of: a banner that says the outcome, cards, sections, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from msport.report.layout import Row
from msport.report.style import STYLE


@dataclass(frozen=True, slots=True)
class Banner:
    """The outcome in a `word`, and lines that explain it; `kind` is ``good``, ``bad`` or ``caution``."""

    kind: str
    word: str
    lines: Sequence[str]

    def __str__(self) -> str:
        return f'<div class="banner {self.kind}"><strong>{escape(self.word)}</strong>{_paragraphs(self.lines)}</div>'


def render(tool: str, title: str, said: str, banners: Sequence[Banner], body: Sequence[str]) -> str:
    """The page that `tool` makes about `title`, `said` below the banners; it needs no network."""
    named = f"{banners[0].word}: {title}" if banners else title
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(f'{named} - {tool}')}</title><style>{STYLE}</style></head>\n<body><main>\n"
        f'<header><p class="tool">{escape(tool)}</p><h1>{escape(title)}</h1>\n'
        + "\n".join(map(str, banners))
        + f'\n<p class="sides">{escape(said)}</p></header>\n'
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def section(title: str, *content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{''.join(content)}\n</section>"


def heading(title: str) -> str:
    """The title of a part of a section."""
    return f"<h3>{escape(title)}</h3>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def remarks(lines: Sequence[str]) -> str:
    return f'<ul class="remarks">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>'


def cards(values: Sequence[tuple[str, str]]) -> str:
    """The few numbers that a reader looks for first, each under its name."""
    items = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values)
    return f'<dl class="cards">{"".join(items)}</dl>' if values else ""


def table(rows: Sequence[Row], align: str = "<", classes: Sequence[str] = ()) -> str:
    """`rows`, the first of them as the head; `align` holds ``<`` or ``>`` for each column, ``>`` for those it lacks.

    `classes` are those of the body's rows.
    """
    sides = align.ljust(len(rows[0]), ">")
    marks = [f' class="{name}"' if name else "" for name in classes] or [""] * (len(rows) - 1)
    head = f"<thead><tr>{_cells(rows[0], sides, 'th')}</tr></thead>"
    body = "".join(f"<tr{mark}>{_cells(row, sides, 'td')}</tr>" for row, mark in zip(rows[1:], marks, strict=True))
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(map(paragraph, lines))


def _cells(row: Row, sides: str, tag: str) -> str:
    words = (' class="word"' if side == "<" else "" for side in sides)
    return "".join(f"<{tag}{word}>{escape(cell)}</{tag}>" for cell, word in zip(row, words, strict=True))
