"""A report in a few sentences: passed or failed, by what, and where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from msport.validate.layers import LayerError
    from msport.validate.report import Report


def verdict(report: Report) -> str:
    """The outcome, and below it, if the model failed, what is known of the fault."""
    return _of_weights(report) if report.setup.level == "weights" else _of_logits(report)


def describe_sides(report: Report) -> str:
    """What was compared with what."""
    setup = report.setup
    if setup.level == "weights":
        return f"{setup.folder} against {setup.reference}, tensor by tensor"
    versions = setup.versions
    return (
        f"{setup.folder} ({setup.architecture}) in {setup.dtype} on {setup.device}, MindSpore {versions['mindspore']},"
        f" against {setup.reference} in {setup.reference_dtype or 'float32'},"
        f" Transformers {versions['transformers']}, torch {versions['torch']}"
    )


def _of_weights(report: Report) -> str:
    elements = sum(check.elements for check in report.weights)
    if report.passed:
        return f"PASSED: {len(report.weights)} tensors, {elements:,} elements, each what its source makes it"
    wrong = sum(not check.passed for check in report.weights)
    return f"FAILED: {wrong} of {len(report.weights)} tensors are not what their source makes them"


def _of_logits(report: Report) -> str:
    tolerance, worst = report.setup.tolerance, report.worst
    if worst is None:
        return "FAILED: nothing was compared"
    tokens = sum(len(result.errors) for result in report.results)
    failed = sum(result.failed(tolerance) for result in report.results)
    largest = f"{worst.errors.relative_l2.max():.2e}"
    place = f"'{worst.title}' at position {worst.start + worst.worst}"
    if report.passed:
        return (
            f"PASSED: relative L2 error at most {largest} (tolerance {tolerance:g}) over {tokens} tokens;"
            " top-1 agrees wherever it is clear"
        )
    if not failed:
        return f"FAILED: the logits agree to {largest}, but the residual stream does not\n{_where(report)}"
    headline = f"FAILED: {failed} of {tokens} tokens (tolerance {tolerance:g}); the worst has {largest}, {place}"
    return f"{headline}\n{_why(report)}"


def _why(report: Report) -> str:
    reasons = [_where(report)]
    infinite = sum(int((~result.errors.finite).sum()) for result in report.results)
    if infinite:
        reasons.insert(0, f"{infinite} tokens have logits that are not finite")
    ranked = sum(
        int((result.errors.clear & ~result.errors.top1 & (result.errors.relative_l2 <= report.setup.tolerance)).sum())
        for result in report.results
    )
    if ranked:
        reasons.insert(0, f"{ranked} tokens are within the tolerance, but rank another token first than the reference")
    return "\n".join(reasons)


def _where(report: Report) -> str:
    paths = {result.path for result in report.results if result.failed(report.setup.tolerance)}
    if paths == {"decode"}:
        return "only decoding fails: prefill agrees, so look at the caches and the one-token step"
    error = report.departure
    if error is None:
        return "no layer departs by more than rounding"
    first = error.first_operation
    if first is None:
        return f"first to depart: {error.name}, along our own trajectory; no operation of it does alone{_ties(error)}"
    return f"first to depart: {error.name}, {first.name} ({first.largest:.1e}): {first.how}"


def _ties(error: LayerError) -> str:
    routing = error.routing
    if routing is None or routing.agreeing == routing.tokens:
        return ""
    return (
        f"\n{routing.tokens - routing.agreeing} tokens chose other experts there, where the reference's lead was at"
        f" most {routing.margin:.1e}: a near tie, which rounding decides"
    )
