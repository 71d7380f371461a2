"""The tables of a report as rows of text, head first; the terminal and the page lay them out."""

from __future__ import annotations

from collections.abc import Sequence

from msport.validate.report import Report
from msport.validate.weights import TensorCheck

Row = tuple[str, ...]

_WRONG_TENSORS_SHOWN = 20


def result_rows(report: Report) -> list[Row]:
    """One row a prompt and path."""
    rows: list[Row] = [
        ("prompt", "tokens", "rel L2 max", "mean", "at", "max abs", "KL mean", "KL max", "top-1", "top-5", "failed")
    ]
    for result in report.results:
        errors = result.errors
        rows.append(
            (
                result.title,
                str(len(errors)),
                f"{errors.relative_l2.max():.2e}",
                f"{errors.relative_l2.mean():.2e}",
                str(result.start + result.worst),
                f"{errors.max_abs.max():.2e}",
                f"{errors.kl.mean():.1e}",
                f"{errors.kl.max():.1e}",
                f"{errors.top1.mean():.1%}",
                f"{errors.overlap.mean():.1%}",
                str(result.failed(report.setup.tolerance)),
            )
        )
    return rows


def layer_rows(report: Report) -> list[Row]:
    """One row a layer, with the factor by which the error grew in it."""
    rows: list[Row] = [("after", "rel L2 max", "mean", "growth", "prompt", "at", "")]
    before = 0.0
    for error in report.layers:
        rows.append(
            (
                name_of_layer(error.layer),
                f"{error.largest:.2e}",
                f"{error.mean:.2e}",
                f"x{error.largest / before:.1f}" if before > 0.0 else "",
                error.prompt,
                str(error.position),
                "departs" if error.layer == report.first_departure else "",
            )
        )
        before = error.largest
    return rows


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
        rows.append((check.name, check.transform, different, f"{check.max_abs:.2e}"))
    if len(wrong) > _WRONG_TENSORS_SHOWN:
        rows.append((f"... and {len(wrong) - _WRONG_TENSORS_SHOWN} more", "", "", ""))
    return rows


def name_of_layer(number: int) -> str:
    """The Hub's name for the module whose output is state `number` of the residual stream."""
    return "embed_tokens" if number == 0 else f"layers.{number - 1}"
