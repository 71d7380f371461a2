"""A report for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msport.report.formatting import utc
from msport.report.table import columns
from msport.sizing.units import format_size
from msport.validate.findings import Findings
from msport.validate.views.sentences import describe_comparison, describe_cost, describe_weights, verdict
from msport.validate.views.tables import (
    cost_table,
    layer_table,
    operation_table,
    result_table,
    text_table,
    weight_table,
)

# Columns that only the page and JSON have, so that the table of results fits 80 columns.
_LEFT_OUT = frozenset({"mean", "max abs", "KL mean", "top-5"})
_TEXT_WIDTH = 66  # beside "prompt 10" in 80 columns


def render_text(report: Findings) -> str:
    """The two sides, tables, notes and, on the last lines, the verdict."""
    return "\n\n".join("\n".join(block) for block in _blocks(report))


def _blocks(report: Findings) -> Iterator[Iterable[str]]:
    yield _header(report)
    if texts := text_table(report, _TEXT_WIDTH).rows:
        yield columns(texts, indent="")
    if report.results:
        yield result_table(report).without(_LEFT_OUT).lines()
    if report.cost is not None:
        yield describe_cost(report.cost), *cost_table(report.cost).lines()
    if report.layers:
        yield "layers", *layer_table(report).lines()
        if report.departure is not None and len(report.departure.operations) > 1:
            yield f"operations of {report.departure.name}, isolated", *operation_table(report.departure).lines()
    if report.setup.level == "weights" or not all(check.passed for check in report.weights):
        yield weight_table(report.weights).lines()
    if report.rounding:
        yield "rounding", *(f"  {line}" for line in report.rounding)
    yield from ([f"note: {note}"] for note in report.notes)
    yield [verdict(report)]


def _header(report: Findings) -> Iterator[str]:
    setup = report.setup
    yield describe_comparison(report).replace(", against", ",\n  against")
    if weights := describe_weights(report):
        yield weights
    yield f"checkpoint {setup.checkpoint[:16]}  seed {setup.seed}  {utc(setup.date)}"
    if report.seconds:
        yield "  ".join(f"{phase} {seconds:.1f} s" for phase, seconds in report.seconds.items())
    if report.peak_bytes is not None:
        way = "one layer at a time, " if setup.streamed else ""
        yield f"{way}peak memory {format_size(report.peak_bytes)}"
