"""A report in a few sentences: passed or failed, by what, and where to look."""

from __future__ import annotations

from msport.validate.departure import NOT_FINITE_THERE
from msport.validate.findings import Findings, PromptResult
from msport.validate.layers import LayerError
from msport.validate.operations import ATTENDED, OUTPUT

# What level logits knows of a layer: the residual stream after each half.
_HALVES = {ATTENDED: "attention", OUTPUT: "feed-forward"}


def verdict(report: Findings) -> str:
    """The outcome, and below it, if the model failed, what is known of the fault."""
    return _of_weights(report) if report.setup.level == "weights" else _of_logits(report)


def describe_sides(report: Findings) -> str:
    """What was compared with what."""
    setup = report.setup
    if setup.level == "weights":
        return f"{setup.folder} against {setup.reference}, tensor by tensor"
    versions = setup.versions
    experts = ", experts packed as MXFP4," if setup.packed else ""
    return (
        f"{setup.folder} ({setup.architecture}) in {setup.dtype}{experts} on {setup.device},"
        f" MindSpore {versions['mindspore']},"
        f" against {setup.reference} in {setup.reference_dtype or 'float32'},"
        f" Transformers {versions['transformers']}, torch {versions['torch']}"
    )


def _of_weights(report: Findings) -> str:
    elements = sum(check.elements for check in report.weights)
    if report.passed:
        return f"PASSED: {len(report.weights)} tensors, {elements:,} elements, each what its source makes it"
    wrong = sum(not check.passed for check in report.weights)
    return (
        f"FAILED: {wrong} of {len(report.weights)} tensors are not what their source makes them;"
        " convert it again with msport convert"
    )


def _of_logits(report: Findings) -> str:
    tolerance, worst = report.setup.tolerance, report.worst
    if worst is None:
        return "FAILED: nothing was compared"
    tokens = sum(len(result.errors) for result in report.results)
    failed = sum(result.failed(tolerance) for result in report.results)
    largest = f"{worst.errors.relative_l2.max():.2e}"
    if report.passed:
        return (
            f"PASSED: relative L2 error at most {largest} (tolerance {tolerance:g}) over {tokens} tokens;"
            " top-1 agrees wherever it is clear"
        )
    if not failed:
        return f"FAILED: the logits agree to {largest}, but the residual stream does not\n{_where(report)}"
    headline = f"FAILED: {failed} of {tokens} tokens (tolerance {tolerance:g}); the worst has {largest}"
    return f"{headline}, {_token(worst, worst.worst)}\n{_why(report)}"


def _token(result: PromptResult, index: int) -> str:
    """Where a token is, and what either side ranks first there."""
    errors = result.errors
    place = f"'{result.title}' at position {result.start + index}"
    if not errors.finite[index]:
        return place
    theirs, ours = int(errors.likeliest[index]), int(errors.likeliest_ours[index])
    if theirs == ours:
        return f"{place}, where both rank token {theirs} first"
    return f"{place}, where we rank token {ours} first, the reference {theirs}"


def _why(report: Findings) -> str:
    reasons = [_where(report)]
    infinite = sum(int((~result.errors.finite).sum()) for result in report.results)
    if infinite:
        reasons.insert(0, f"{infinite} tokens have logits that are not finite")
    ranked = [(result, index) for result in report.results for index in _ranked_otherwise(result, report)]
    if ranked:
        said = "tokens are within the tolerance, but rank another token first than the reference; the first"
        reasons.insert(0, f"{len(ranked)} {said} is {_token(*ranked[0])}")
    return "\n".join(reasons)


def _ranked_otherwise(result: PromptResult, report: Findings) -> list[int]:
    errors = result.errors
    wrong = errors.clear & ~errors.top1 & (errors.relative_l2 <= report.setup.tolerance)
    return [int(index) for index in wrong.nonzero()[0]]


def _where(report: Findings) -> str:
    paths = {result.path for result in report.results if result.failed(report.setup.tolerance)}
    error = report.departure
    if error is None or error.first_operation is None:
        if paths == {"decode"}:
            return "only decoding fails: prefill agrees, so look at the caches and the one-token step"
        if paths == {"batch"}:
            return "only batches fail: each prompt alone agrees, so look at padding and at what rows of a batch share"
    if error is None:
        return "no layer departs by more than rounding"
    first = error.first_operation
    if first is None:
        said = f"first to depart: {error.name}, along our own trajectory; no operation of it does alone"
        return said + (_ties(error) or _adds_up(report))
    found = f"first to depart: {error.name}, {first.name} ({first.largest:.1e}): {first.how}"
    if first.how.startswith(NOT_FINITE_THERE):
        return f"{found}\nthe original is damaged, or overflows in {report.setup.reference_dtype or 'float32'}"
    if first.name in _HALVES and report.setup.level == "logits":
        found += f"\nthe fault is in the {_HALVES[first.name]}; --level layers names the operation"
    return f"{found}{_weights(report, error)}"


def _weights(report: Findings, error: LayerError) -> str:
    """Whether the weights of the layer that departs are to blame."""
    wrong = [check for check in report.weights if not check.passed]
    if not report.weights:
        return ""
    if not wrong:
        return (
            f"\nthe {len(report.weights)} tensors of {error.name} are what their source makes them:"
            " the fault is in config.json or in the computation"
        )
    first, more = wrong[0], f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    what = first.fault or f"has {first.different:,} of {first.elements:,} elements that its source does not make"
    return f"\nits weights are wrong: {first.name} {what}{more}; convert again, and see --level weights"


def _adds_up(report: Findings) -> str:
    dtypes = {report.setup.dtype, report.setup.reference_dtype} - {"float32", None}
    if not dtypes:
        return ""
    return f"\nrounding to {min(map(str, dtypes))} adds up along the way; float32 on both sides tells it from a fault"


def _ties(error: LayerError) -> str:
    routing = error.routing
    if routing is None or routing.agreeing == routing.tokens:
        return ""
    return (
        f"\n{routing.tokens - routing.agreeing} tokens chose other experts there, where the reference's lead was at"
        f" most {routing.margin:.1e}: a near tie, which rounding decides"
    )
