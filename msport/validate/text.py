"""A report for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from msport.validate.report import Report
from msport.validate.tables import Row, layer_rows, result_rows, weight_rows
from msport.validate.verdict import describe_sides, verdict


def render_text(report: Report) -> str:
    """What was compared, tables, notes and, on the last lines, the verdict."""
    blocks = [_header(report)]
    if report.results:
        blocks.append(_table(result_rows(report)))
    if report.layers:
        blocks.append("residual stream\n" + _table(layer_rows(report)))
    if report.weights:
        blocks.append(_table(weight_rows(report.weights)))
    blocks += [f"note: {note}" for note in report.notes]
    blocks.append(verdict(report))
    return "\n\n".join(blocks)


def _header(report: Report) -> str:
    lines = [describe_sides(report), f"checkpoint {report.setup.checkpoint[:16]}  seed {report.setup.seed}"]
    if report.seconds:
        lines.append("  ".join(f"{phase} {seconds:.1f} s" for phase, seconds in report.seconds.items()))
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> str:
    """Columns as wide as needed: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Row, widths: Sequence[int]) -> str:
    first, *others = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
    return "  ".join([f"{first.strip():<{widths[0]}}", *others]).rstrip()
