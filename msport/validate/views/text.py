"""A report for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from msport.report.layout import Row, table, utc
from msport.validate.findings import Findings
from msport.validate.verdict.sentences import describe_sides, verdict
from msport.validate.views.tables import alignment, layer_rows, operation_rows, result_rows, text_rows, weight_rows

# Columns that the page and JSON have: without them a table of results fits 80 columns.
_LEFT_OUT = frozenset({"mean", "max abs", "KL mean", "top-5"})
_TEXT_WIDTH = 66  # beside "prompt 10" in 80 columns


def render_text(report: Findings) -> str:
    """What was compared, tables, notes and, on the last lines, the verdict."""
    blocks = [_header(report)]
    if texts := text_rows(report, _TEXT_WIDTH):
        blocks.append("\n".join(table(texts, indent="")))
    if report.results:
        blocks.append(_table(_narrowed(result_rows(report))))
    if report.layers:
        blocks.append("layers\n" + _table(layer_rows(report)))
        if report.departure is not None and len(report.departure.operations) > 1:
            rows = operation_rows(report.departure)
            blocks.append(f"operations of {report.departure.name}, isolated\n" + _table(rows))
    if report.setup.level == "weights" or not all(check.passed for check in report.weights):
        blocks.append(_table(weight_rows(report.weights)))
    if report.rounding:
        blocks.append("rounding\n" + "\n".join(f"  {line}" for line in report.rounding))
    blocks += [f"note: {note}" for note in report.notes]
    blocks.append(verdict(report))
    return "\n\n".join(blocks)


def _header(report: Findings) -> str:
    setup = report.setup
    lines = [
        describe_sides(report).replace(", against", ",\n  against"),
        f"checkpoint {setup.checkpoint[:16]}  seed {setup.seed}  {utc(setup.date)}",
    ]
    if report.seconds:
        lines.append("  ".join(f"{phase} {seconds:.1f} s" for phase, seconds in report.seconds.items()))
    if report.peak_bytes is not None:
        way = "one layer at a time, " if setup.streamed else ""
        lines.append(f"{way}peak memory {report.peak_bytes / 1e9:.2f} GB")
    return "\n".join(lines)


def _narrowed(rows: Sequence[Row]) -> list[Row]:
    kept = [number for number, name in enumerate(rows[0]) if name not in _LEFT_OUT]
    return [tuple(row[number] for number in kept) for row in rows]


def _table(rows: Sequence[Row]) -> str:
    return "\n".join(table(rows, alignment(rows[0]), indent=""))
