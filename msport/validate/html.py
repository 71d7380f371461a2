"""A report as one self-contained page: the verdict first, then pictures, then the tables of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from msport.report.layout import Row, utc
from msport.validate.findings import Findings
from msport.validate.pictures import (
    differences_picture,
    layers_picture,
    operations_picture,
    positions_picture,
    routing_picture,
)
from msport.validate.style import STYLE
from msport.validate.tables import layer_rows, operation_rows, result_rows, text_rows, weight_rows
from msport.validate.verdict import describe_sides, verdict

_TEXT_WIDTH = 110
_WORDS = frozenset({"text", "how", "prompt", "operation", "transform", "value", "first to depart", "wrong"})


def render_html(report: Findings) -> str:
    """The page; it opens without a network and holds everything but the token ids and the single errors."""
    state = "passed" if report.passed else "failed"
    headline, *details = verdict(report).splitlines()
    word, _, said = headline.partition(": ")
    body = "\n".join(
        [
            f'<header><p class="tool">msport validate</p><h1>{escape(report.setup.folder)}</h1>',
            f'<div class="verdict {state}"><strong>{escape(word)}</strong><p>{escape(said)}</p>',
            *(f"<p>{escape(line)}</p>" for line in details),
            "</div>",
            f'<p class="sides">{escape(describe_sides(report))}; {escape(utc(report.setup.date))}</p></header>',
            _cards(report),
            *_sections(report),
            *_remarks(report),
            "<section><h2>Setup</h2>",
            _table(_setup_rows(report)),
            "</section>",
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(word)}: {escape(report.setup.folder)}</title><style>{STYLE}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _cards(report: Findings) -> str:
    """The few numbers that a reader looks for first."""
    cards: list[tuple[str, str]] = []
    if report.worst is not None:
        tokens = sum(len(result.errors) for result in report.results)
        top1 = sum(float(result.errors.top1.sum()) for result in report.results) / max(1, tokens)
        kl = max(float(result.errors.kl.max()) for result in report.results)
        cards += [
            ("largest relative L2 error", f"{report.worst.errors.relative_l2.max():.2e}"),
            ("tolerance", f"{report.setup.tolerance:g}"),
            ("tokens compared", f"{tokens:,}"),
            ("top-1 agrees", f"{top1:.2%}"),
            ("largest KL", f"{kl:.1e}"),
        ]
    if report.setup.level == "weights":
        cards.append(("tensors", f"{len(report.weights):,}"))
        cards.append(("elements", f"{sum(check.elements for check in report.weights):,}"))
    if report.seconds:
        cards.append(("time", f"{sum(report.seconds.values()):,.0f} s"))
    if report.peak_bytes is not None:
        cards.append(("peak memory", f"{report.peak_bytes / 1e9:.1f} GB"))
    items = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in cards)
    return f'<dl class="cards">{"".join(items)}</dl>'


def _sections(report: Findings) -> Iterator[str]:
    tolerance = report.setup.tolerance
    if report.layers:
        yield "<section><h2>Error by layer</h2>"
        yield "<p>The line is our own trajectory, the dots are blocks that were given the reference's own input.</p>"
        yield layers_picture(report)
        yield _table(layer_rows(report), [error.layer == report.first_departure for error in report.layers])
        departure = report.departure
        if departure is not None and len(departure.operations) > 1:
            yield f"<h3>Inside {escape(departure.name)}, operation by operation</h3>"
            yield operations_picture(report, departure)
            yield _table(operation_rows(departure), [operation.departs for operation in departure.operations])
        yield "</section>"
    if any(error.routing is not None for error in report.layers):
        yield "<section><h2>Router agreement</h2>"
        if all(error.routing is None or error.routing.agreement == 1.0 for error in report.layers):
            yield "<p>Every token chose the reference's experts in every layer, along our own trajectory.</p>"
        else:
            yield "<p>Share of tokens that chose the reference's experts, along our own trajectory.</p>"
            yield routing_picture(report)
        yield "</section>"
    if texts := text_rows(report, _TEXT_WIDTH):
        yield "<section><h2>Prompts</h2>"
        yield _table([("prompt", "text"), *texts])
        yield "</section>"
    if report.results:
        yield "<section><h2>Error by position</h2>"
        yield "<p>Relative L2 error of each token's logits.</p>"
        yield positions_picture(report)
        yield _table(result_rows(report), [bool(result.failed(tolerance)) for result in report.results])
        yield "</section><section><h2>Distribution of logit differences</h2>"
        yield "<p>How far single logits differ, as a share of the root mean square of that token's logits.</p>"
        yield differences_picture(report)
        yield "</section>"
    if report.weights:
        yield "<section><h2>Weights</h2>"
        if report.setup.level != "weights" and report.departure is not None:
            yield f"<p>The tensors of {escape(report.departure.name)} against their source.</p>"
        yield _table(weight_rows(report.weights), [not check.passed for check in report.weights if not check.passed])
        yield "</section>"


def _remarks(report: Findings) -> Iterator[str]:
    for title, lines in (("Rounding", report.rounding), ("What this run could not show", report.notes)):
        if lines:
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            yield f'<section><h2>{title}</h2><ul class="remarks">{items}</ul></section>'


def _setup_rows(report: Findings) -> list[Row]:
    setup = report.setup
    stated = [(name, getattr(setup, name)) for name in type(setup).__slots__ if name != "versions"]
    seconds = [(phase, f"{value:.1f} s") for phase, value in (report.seconds or {}).items()]
    rows = [*stated, *setup.versions.items(), *seconds]
    return [
        ("setting", "value"),
        *((name.replace("_", " "), _said(value)) for name, value in rows if value is not None),
    ]


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _table(rows: Sequence[Row], bad: Sequence[bool] = ()) -> str:
    """`rows`, the first of them as the head; `bad` marks rows of the body."""
    words = [number == 0 or head in _WORDS for number, head in enumerate(rows[0])]
    marks = [' class="bad"' if number < len(bad) and bad[number] else "" for number in range(len(rows) - 1)]
    body = "".join(f"<tr{mark}>{_cells(row, words, 'td')}</tr>" for row, mark in zip(rows[1:], marks, strict=True))
    head = f"<thead><tr>{_cells(rows[0], words, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _cells(row: Row, words: Sequence[bool], tag: str) -> str:
    """`words` says which cells are text, to be set to the left."""
    sides = (' class="word"' if word else "" for word in words)
    return "".join(f"<{tag}{side}>{escape(cell)}</{tag}>" for cell, side in zip(row, sides, strict=True))
