"""The tables of a report, for the terminal and the page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from msport.report.formatting import power_of_ten, scientific, shortened, times
from msport.report.table import Row, Table
from msport.validate.compare.cost import Cost, TextCost
from msport.validate.compare.layers import LayerError
from msport.validate.compare.logits import BATCHED
from msport.validate.compare.metrics import concatenate
from msport.validate.compare.results import PromptResult
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.findings import Findings

_WRONG_TENSORS_SHOWN = 20


def text_table(report: Findings, width: int) -> Table:
    """The user's prompt texts, each on one line of at most `width` columns."""
    texts = {result.prompt.name: result.prompt.text for result in report.results}
    rows = [(name, shortened(text, width)) for name, text in texts.items() if text is not None]
    return Table(("prompt", "text"), rows, "<<")


def result_table(report: Findings) -> Table:
    """One row per prompt and path; the sequences of a batch share a row.

    ``x noise`` is the median error as a multiple of the reference's own noise.
    """
    head = ("prompt", "tokens", "rel L2 max", "mean", "x noise", "at", "max abs", "KL mean", "KL max", "top-1", "top-5")
    groups = [[result] for result in report.results if result.path != BATCHED]
    if batch := [result for result in report.results if result.path == BATCHED]:
        groups.append(batch)
    rows = [_result_row(report, group) for group in groups]
    classes = [_bad_if(any(result.failed for result in group)) for group in groups]
    return Table((*head, "failed"), rows, classes=classes).without_empty()


def _result_row(report: Findings, group: Sequence[PromptResult]) -> Row:
    errors = concatenate(result.errors for result in group)
    worst = max(group, key=lambda result: result.largest)
    title = group[0].title
    noise = None if report.judgement is None else report.judgement.ratio_of(_judged_as(group[0]))
    return (
        title if len(group) == 1 else f"batch of {len(group)}",
        str(len(errors)),
        scientific(worst.largest),
        scientific(errors.relative_l2.mean()),
        "" if noise is None else times(noise),
        str(worst.start + worst.worst),
        scientific(errors.max_abs.max()),
        scientific(errors.kl.mean(), 1),
        scientific(errors.kl.max(), 1),
        f"{errors.top1.mean():.1%}",
        f"{errors.overlap.mean():.1%}",
        str(sum(result.failed for result in group)),
    )


def _judged_as(result: PromptResult) -> str:
    return BATCHED if result.path == BATCHED else result.title


def layer_table(report: Findings) -> Table:
    """One row per station: our own trajectory, the two isolated halves, the router, the first operation that
    departs.
    """
    head = ("after", "drift", "growth", "at", "attention", "feed-forward", "experts", "first to depart", "how")
    departure, rows, before = report.departure, list[Row](), 0.0
    for error in report.layers:
        rows.append(_layer_row(error, before, error is departure))
        before = error.largest
    classes = [_bad_if(error is departure) for error in report.layers]
    return Table(head, rows, "<>>>>>><<", classes).without_empty()


def _layer_row(error: LayerError, before: float, departs: bool) -> Row:
    first = error.first_operation
    return (
        error.name,
        scientific(error.largest),
        _growth(before, error.largest),
        f"{error.prompt}, {error.position}",
        "" if error.attention is None else scientific(error.attention),
        "" if error.feed_forward is None else scientific(error.feed_forward),
        "" if error.routing is None else f"{error.routing.agreement:.2%}",
        first.name if first else "drift" if departs else "",
        first.how if first else "",
    )


def _growth(before: float, after: float) -> str:
    """The growth factor of an error; a dash if it is not a number."""
    if not (before > 0.0 and math.isfinite(before) and math.isfinite(after)):
        return "-"
    ratio = after / before
    if ratio >= 1e6:
        return f"x{power_of_ten(round(math.log10(ratio)))}"
    return f"x{ratio:.1f}" if ratio < 1000.0 else f"x{ratio:,.0f}"


def operation_table(error: LayerError) -> Table:
    """One row per operation of an isolated block."""
    rows = [
        (each.name, scientific(each.largest), scientific(each.mean), each.prompt, str(each.position), each.how)
        for each in error.operations
    ]
    classes = [_bad_if(each.departs) for each in error.operations]
    return Table(("operation", "rel L2 max", "mean", "prompt", "at", "how"), rows, "<>><><", classes)


def weight_table(checks: Sequence[TensorCheck]) -> Table:
    """A screenful of the wrong tensors; if there are none, the number of tensors per transform."""
    wrong = [check for check in checks if not check.passed]
    if not wrong:
        counts = sorted(Counter(check.transform for check in checks).items())
        return Table(("transform", "tensors"), [(transform, str(count)) for transform, count in counts])
    rows: list[Row] = []
    for check in wrong[:_WRONG_TENSORS_SHOWN]:
        different = check.fault or f"{check.different:,} of {check.elements:,}"
        rows.append((check.name, check.transform, different, "" if check.fault else scientific(check.max_abs)))
    if len(wrong) > _WRONG_TENSORS_SHOWN:
        rows.append((f"... and {len(wrong) - _WRONG_TENSORS_SHOWN} more", "", "", ""))
    return Table(("tensor", "transform", "wrong", "max abs"), rows, "<<<>", ["bad"] * len(rows))


def cost_table(cost: Cost) -> Table:
    """One row per text, and one for all of them if there are several."""
    head = ("text", "tokens", "KL mean", "KL max", "top-1", "perplexity", "original's")
    costs = cost.texts if len(cost.texts) == 1 else (*cost.texts, cost.total)
    return Table(head, [_cost_row(each) for each in costs])


def _cost_row(cost: TextCost) -> Row:
    return (
        cost.name,
        str(cost.tokens),
        scientific(cost.kl_mean),
        scientific(cost.kl_max),
        f"{cost.top1:.1%}",
        "" if cost.perplexity is None else f"{cost.perplexity:.4g}",
        "" if cost.perplexity_original is None else f"{cost.perplexity_original:.4g}",
    )


def _bad_if(bad: bool) -> str:
    return "bad" if bad else ""
