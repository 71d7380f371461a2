"""A report as one self-contained page: the tables of the terminal, and the error at each position as a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from msport.validate.chart import Series, error_chart
from msport.validate.report import Report
from msport.validate.tables import Row, layer_rows, result_rows, weight_rows
from msport.validate.verdict import describe_sides, verdict

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.verdict { padding: .7rem 1rem; border-left: .4rem solid; white-space: pre-line; font-weight: 600; }
.passed { border-color: #15803d; background: #15803d1a; } .failed { border-color: #b91c1c; background: #b91c1c1a; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.bad td { color: #b91c1c; font-weight: 600; }
svg { width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: currentColor; }
.grid { stroke: #8884; } .limit { stroke: #b91c1c; stroke-dasharray: 5 4; }
"""


def render_html(report: Report) -> str:
    """The page; it opens without a network and holds everything but the token ids and the single errors."""
    state = "passed" if report.passed else "failed"
    body = "\n".join(
        [
            f"<h1>msport validate: {escape(report.setup.folder)}</h1>",
            f'<p class="verdict {state}">{escape(verdict(report))}</p>',
            f"<p>{escape(describe_sides(report))}</p>",
            *_sections(report),
            *(f"<p>Note: {escape(note)}.</p>" for note in report.notes),
            "<h2>Setup</h2>",
            _table(_setup_rows(report)),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>msport validate: {state}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _sections(report: Report) -> Iterator[str]:
    tolerance = report.setup.tolerance
    if report.results:
        yield "<h2>Prompts</h2>"
        yield _table(result_rows(report), [bool(result.failed(tolerance)) for result in report.results])
        yield "<h2>Relative L2 error of the logits by position</h2>"
        series = [Series(each.title, each.start, each.errors.relative_l2.tolist()) for each in report.results]
        yield error_chart(series, tolerance)
    if report.layers:
        yield "<h2>Residual stream</h2>"
        yield _table(layer_rows(report), [error.layer == report.first_departure for error in report.layers])
    if report.weights:
        yield "<h2>Weights</h2>"
        yield _table(weight_rows(report.weights))


def _setup_rows(report: Report) -> list[Row]:
    setup = report.setup
    stated = [(name, getattr(setup, name)) for name in type(setup).__slots__ if name != "versions"]
    seconds = [(phase, f"{value:.1f} s") for phase, value in (report.seconds or {}).items()]
    rows = [*stated, *setup.versions.items(), *seconds]
    return [("setting", "value"), *((name, str(value)) for name, value in rows if value is not None)]


def _table(rows: Sequence[Row], bad: Sequence[bool] = ()) -> str:
    """`rows`, the first of them as the head; `bad` marks rows of the body."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    marks = [' class="bad"' if number < len(bad) and bad[number] else "" for number in range(len(rows) - 1)]
    lines = (
        f"<tr{mark}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row, mark in zip(rows[1:], marks, strict=True)
    )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'
