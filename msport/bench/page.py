"""What a self-contained page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from msport.validate.style import STYLE

_STYLE = (
    STYLE
    + """
tr.good td:last-child { color: var(--good); font-weight: 600; } tr.bad td { color: inherit; font-weight: inherit; }
tr.bad td:last-child { color: var(--bad); font-weight: 600; } svg .mark { stroke: var(--ink); fill: none; }
.noise { fill: var(--line); } th, td { padding: .28rem .5rem; } td:last-child, th:last-child { padding-right: 0; }
table { font-size: .82rem; }
@media (max-width: 48rem) { figure { overflow-x: auto; } figure svg { min-width: 44rem; } svg text { font-size: 12px; }
  .legend { position: sticky; left: 0; } }
"""
)


def render(title: str, said: str, body: Sequence[str]) -> str:
    """The page of what `title` names, `said` under it; it needs no network."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>msport bench: {escape(title)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        f'<header><p class="tool">msport bench</p><h1>{escape(title)}</h1>\n'
        f'<p class="sides">{escape(said)}</p></header>\n' + "\n".join(body) + "\n</main></body></html>\n"
    )


def section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}\n</section>"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(rows: Sequence[Sequence[str]], align: str = "", classes: Sequence[str] = ()) -> str:
    """`rows`, the first of them as the head; `align` holds ``<`` or ``>`` for each column, by default ``<>>>...``.

    `classes` are those of the body's rows.
    """
    sides = (align or "<").ljust(len(rows[0]), ">")
    marks = [f' class="{name}"' if name else "" for name in classes] or [""] * (len(rows) - 1)
    head = f"<thead><tr>{_cells(rows[0], sides, 'th')}</tr></thead>"
    body = "".join(f"<tr{mark}>{_cells(row, sides, 'td')}</tr>" for row, mark in zip(rows[1:], marks, strict=True))
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _cells(row: Sequence[str], sides: str, tag: str) -> str:
    words = (' class="word"' if side == "<" else "" for side in sides)
    return "".join(f"<{tag}{word}>{escape(cell)}</{tag}>" for cell, word in zip(row, words, strict=True))
