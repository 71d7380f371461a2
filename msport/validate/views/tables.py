"""The tables of a report as rows of text, head first; the terminal and the page lay them out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msport.report.layout import Row, power_of_ten, shortened
from msport.validate.compare.layers import LayerError
from msport.validate.compare.logits import BATCHED
from msport.validate.compare.metrics import concatenate
from msport.validate.compare.results import PromptResult
from msport.validate.compare.weights import TensorCheck
from msport.validate.findings import Findings

_WRONG_TENSORS_SHOWN = 20
# Heads of columns that hold words, as the first one does; the others hold numbers.
_WORDS = frozenset({"text", "how", "prompt", "transform", "value", "first to depart", "wrong"})


def alignment(head: Row) -> str:
    """``<`` for each column of words, ``>`` for each of numbers."""
    return "".join("<" if number == 0 or name in _WORDS else ">" for number, name in enumerate(head))


def error_text(value: float, digits: int = 2) -> str:
    """An error as every table writes it."""
    return f"{value:.{digits}e}" if math.isfinite(value) else "not finite"


def text_rows(report: Findings, width: int) -> list[Row]:
    """The texts that the user gave as prompts, each on one line of at most `width` columns."""
    texts = {result.prompt.name: result.prompt.text for result in report.results}
    return [(name, shortened(text, width)) for name, text in texts.items() if text is not None]


def result_groups(report: Findings) -> list[list[PromptResult]]:
    """The results that share a row: each prompt and path has one, and the sequences of a batch have one together."""
    alone = [[result] for result in report.results if result.path != BATCHED]
    batch = [result for result in report.results if result.path == BATCHED]
    return [*alone, batch] if batch else alone


def result_rows(report: Findings) -> list[Row]:
    """One row a prompt and path; ``x noise`` is the median error as a multiple of the reference's own noise."""
    head = ("prompt", "tokens", "rel L2 max", "mean", "x noise", "at", "max abs", "KL mean", "KL max", "top-1", "top-5")
    rows: list[Row] = [(*head, "failed")]
    for group in result_groups(report):
        errors = concatenate(result.errors for result in group)
        worst = max(group, key=lambda result: result.errors.relative_l2.max())
        title = group[0].title if len(group) == 1 else f"batch of {len(group)}"
        rows.append(
            (
                title,
                str(len(errors)),
                error_text(errors.relative_l2.max()),
                error_text(errors.relative_l2.mean()),
                _times_noise(report, BATCHED if group[0].path == BATCHED else group[0].title),
                str(worst.start + worst.worst),
                error_text(errors.max_abs.max()),
                error_text(errors.kl.mean(), 1),
                error_text(errors.kl.max(), 1),
                f"{errors.top1.mean():.1%}",
                f"{errors.overlap.mean():.1%}",
                str(sum(result.failed for result in group)),
            )
        )
    return [_without_empty(row, _empty_columns(rows)) for row in rows]


def layer_rows(report: Findings) -> list[Row]:
    """One row a station: our own trajectory, the two isolated halves, the router, and the first operation to depart."""
    head: Row = ("after", "drift", "growth", "at", "attention", "feed-forward", "experts", "first to depart", "how")
    rows: list[Row] = [head]
    before = 0.0
    for error in report.layers:
        first = error.first_operation
        marked = error.layer == report.first_departure
        rows.append(
            (
                error.name,
                error_text(error.largest),
                _growth(before, error.largest),
                f"{error.prompt}, {error.position}",
                _number(error.attention),
                _number(error.feed_forward),
                "" if error.routing is None else f"{error.routing.agreement:.2%}",
                first.name if first else ("drift" if marked else ""),
                first.how if first else "",
            )
        )
        before = error.largest
    return [_without_empty(row, _empty_columns(rows)) for row in rows]


def operation_rows(error: LayerError) -> list[Row]:
    """One row an operation of an isolated block."""
    rows: list[Row] = [("operation", "rel L2 max", "mean", "prompt", "at", "how")]
    for operation in error.operations:
        at = operation.prompt, str(operation.position)
        rows.append((operation.name, error_text(operation.largest), error_text(operation.mean), *at, operation.how))
    return rows


def _times_noise(report: Findings, title: str) -> str:
    """The median error of the results called `title`, as a multiple of the noise; empty where it was not judged."""
    ratio = None if report.judgement is None else report.judgement.ratio_of(title)
    return "" if ratio is None else ratio_text(ratio)


def ratio_text(ratio: float) -> str:
    """How many times as large."""
    if not math.isfinite(ratio):
        return "not finite"
    return f"{ratio:.1f}" if ratio < 100.0 else f"{float(f'{ratio:.1e}'):,.0f}"


def _growth(before: float, after: float) -> str:
    """How many times as large an error has become; a dash where that is no number."""
    if not (before > 0.0 and math.isfinite(before) and math.isfinite(after)):
        return "-"
    ratio = after / before
    if ratio >= 1e6:
        return f"x{power_of_ten(round(math.log10(ratio)))}"
    return f"x{ratio:.1f}" if ratio < 1000.0 else f"x{ratio:,.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else error_text(value)


def _empty_columns(rows: Sequence[Row]) -> frozenset[int]:
    """Columns with a head and nothing below it: a dense model has no experts, a good one no departure."""
    return frozenset(i for i in range(len(rows[0])) if not any(row[i] for row in rows[1:]))


def _without_empty(row: Row, empty: frozenset[int]) -> Row:
    return tuple(cell for i, cell in enumerate(row) if i not in empty)


def weight_rows(checks: Sequence[TensorCheck]) -> list[Row]:
    """The tensors that are wrong, a screenful of them; if there are none, how many were made by which transform."""
    wrong = [check for check in checks if not check.passed]
    if not wrong:
        transforms = [check.transform for check in checks]
        counts = {transform: transforms.count(transform) for transform in sorted(set(transforms))}
        return [("transform", "tensors"), *((transform, str(count)) for transform, count in counts.items())]
    rows: list[Row] = [("tensor", "transform", "wrong", "max abs")]
    for check in wrong[:_WRONG_TENSORS_SHOWN]:
        different = check.fault or f"{check.different:,} of {check.elements:,}"
        rows.append((check.name, check.transform, different, "" if check.fault else error_text(check.max_abs)))
    if len(wrong) > _WRONG_TENSORS_SHOWN:
        rows.append((f"... and {len(wrong) - _WRONG_TENSORS_SHOWN} more", "", "", ""))
    return rows
