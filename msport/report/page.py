"""The parts of a self-contained page: a banner with the outcome, cards, sections, tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from msport.report.style import STYLE
from msport.report.table import Table


@dataclass(frozen=True, slots=True)
class Banner:
    """The outcome in a `word`, and lines that explain it; `kind` is ``good``, ``bad`` or ``caution``."""

    kind: str
    word: str
    lines: Sequence[str]

    def __str__(self) -> str:
        lines = "".join(map(paragraph, self.lines))
        return f'<div class="banner {self.kind}"><strong>{escape(self.word)}</strong>{lines}</div>'


def render(tool: str, title: str, subtitle: str, banners: Sequence[Banner], body: Sequence[str]) -> str:
    """The page of `tool` about `title`, with `subtitle` below the banners. It needs no network."""
    named = f"{banners[0].word}: {title}" if banners else title
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(f'{named} - {tool}')}</title><style>{STYLE}</style></head>\n<body><main>\n"
        f'<header><p class="tool">{escape(tool)}</p><h1>{escape(title)}</h1>\n'
        + "\n".join(map(str, banners))
        + f'\n<p class="subtitle">{escape(subtitle)}</p></header>\n'
        + "\n".join(filter(None, body))
        + "\n</main></body></html>\n"
    )


def section(title: str, *content: str) -> str:
    """A section of the page; empty without content."""
    return f"<section><h2>{escape(title)}</h2>\n{''.join(content)}\n</section>" if any(content) else ""


def heading(title: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(title)}</h3>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def remarks(lines: Sequence[str]) -> str:
    """A list; empty without lines."""
    return f'<ul class="remarks">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def cards(values: Iterable[tuple[str, str]]) -> str:
    """The most important numbers, each below its name; empty if there are none."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in values)
    return items and f'<dl class="cards">{items}</dl>'


def settings(values: Mapping[str, object]) -> str:
    """A table of `values` by name, without those that are None."""
    shown = {True: "yes", False: "no"}
    rows = [
        (name.replace("_", " "), shown[value] if isinstance(value, bool) else str(value))
        for name, value in values.items()
        if value is not None
    ]
    return Table(("setting", "value"), rows, "<<").html()
