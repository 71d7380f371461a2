"""What a self-contained page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } .good td:last-child { color: #15803d; font-weight: 600; }
.bad td:last-child { color: #b91c1c; font-weight: 600; } .legend { font-size: 13px; margin: .2rem 0 0; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.grid { stroke: #8884; } .axis { stroke: currentColor; fill: none; } .limit { stroke: #b91c1c; stroke-dasharray: 5 4; }
.noise { fill: #8883; }
"""


def render(title: str, body: Sequence[str]) -> str:
    """The page; it needs no network."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def section(title: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2>\n{content}"


def paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>"


def table(rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """`rows`, the first of them as the head; `classes` are those of the body's rows."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    marks = [f' class="{name}"' if name else "" for name in classes] or [""] * (len(rows) - 1)
    lines = (
        f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row, mark in zip(rows[1:], marks, strict=True)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'
