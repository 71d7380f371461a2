"""A report in a few sentences: passed or failed, by what, and where to look."""

from __future__ import annotations

from collections.abc import Iterator

from msport.report.layout import scientific, times
from msport.validate.compare.departure import NOT_FINITE_THERE
from msport.validate.compare.layers import LayerError, stands_out
from msport.validate.compare.logits import BATCHED
from msport.validate.compare.results import PromptResult
from msport.validate.findings import Findings
from msport.validate.operations import ATTENDED, HEAD, OUTPUT, tensors_of
from msport.validate.verdict.rules import LEAD, Judgement

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
    judgement, worst = report.judgement, report.worst
    if judgement is None or worst is None:
        return "FAILED: nothing was compared"
    if report.passed:
        return f"PASSED: {_passed(report, judgement, worst)}{_excused(judgement)}"
    reasons = list(_reasons(report, judgement, worst))
    if not judgement.passed or report.departure is not None:
        reasons.append(_where(report))
    return f"FAILED: {chr(10).join(reasons)}{_excused(judgement)}"


def _passed(report: Findings, judgement: Judgement, worst: PromptResult) -> str:
    tokens = sum(len(result.errors) for result in report.results)
    said = f"relative L2 error at most {scientific(worst.errors.relative_l2.max())} over {tokens:,} tokens"
    tolerance = f"tolerance {judgement.tolerance:g}"
    if judgement.rule == "tolerance":
        return f"{said} ({tolerance}, the only thing that was judged)"
    ratio = times(judgement.checks[0].ratio)
    weights = f"; {len(report.weights)} tensors are what their source makes them" if report.weights else ""
    return f"within rounding: {said} ({tolerance}), {ratio} times the reference's own noise{weights}"


def _reasons(report: Findings, judgement: Judgement, worst: PromptResult) -> Iterator[str]:
    """What broke the rule, the most telling first."""
    tokens = sum(len(result.errors) for result in report.results)
    largest = scientific(worst.errors.relative_l2.max())
    infinite = sum(int((~result.errors.finite).sum()) for result in report.results)
    beyond = sum(int((r.failing & ~(r.errors.relative_l2 <= judgement.tolerance)).sum()) for r in report.results)
    check = judgement.worst
    unexplained = "" if check is None or check.passed else f"{times(check.ratio)} times what rounding explains"
    if infinite:
        yield f"{infinite:,} of {tokens:,} tokens have logits that are not finite"
    elif beyond:
        said = f"{beyond:,} of {tokens:,} tokens exceed the tolerance {judgement.tolerance:g}; the worst has {largest}"
        yield f"{said}{unexplained and ', ' + unexplained}, {_token(worst, worst.worst)}"
    elif unexplained and check is not None and check.metric != LEAD:
        yield (
            f"within {judgement.tolerance:g}, but {unexplained}: {check.metric}, {check.statistic},"
            f" is {scientific(check.error)}, the reference's own noise {scientific(check.noise)};"
            f" the worst token has {largest}, {_token(worst, worst.worst)}"
        )
    if judgement.swapped:
        yield _swapped(report, judgement)
    if report.setup.level == "layers" and judgement.passed and report.departure is not None:
        yield f"the logits agree to {largest}, but an operation departs"
    yield from _wrong_weights(report, largest, agreeing=judgement.passed)


def _swapped(report: Findings, judgement: Judgement) -> str:
    lost = [(r, int(i)) for r in report.results for i in (r.failing & ~r.errors.top1 & r.errors.finite).nonzero()[0]]
    result, index = max(lost, key=lambda found: found[0].errors.regret[found[1]])
    return (
        f"{judgement.swapped:,} tokens rank another token first although the reference is sure: it leads by"
        f" {result.errors.regret[index]:.3g} {_token(result, index)}"
    )


def _wrong_weights(report: Findings, largest: str, *, agreeing: bool) -> Iterator[str]:
    """The tensors that are wrong, where no station of the model departs by which they would be told."""
    wrong = [check for check in report.weights if not check.passed]
    if wrong and (report.departure is None or report.departure.first_operation is None):
        first = wrong[0]
        what = first.fault or f"differs in {first.different:,} of {first.elements:,} elements"
        said = f"the logits agree to {largest} within rounding, but " if agreeing else ""
        yield (
            f"{said}{len(wrong)} of {len(report.weights)} tensors are not what their source makes them: {first.name}"
            f" {what}; convert again, and see --level weights"
        )


def _excused(judgement: Judgement) -> str:
    said = []
    if judgement.excused:
        said.append(f"{judgement.excused:,} tokens are excused: their experts nearly tie, so that rounding decides")
    if judgement.following:
        said.append(
            f"{judgement.following:,} tokens after a near tie of experts, whose keys they see, count in the median of"
            " all tokens alone"
        )
    return "".join(f"\n{line}" for line in said)


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


def _where(report: Findings) -> str:
    paths = {result.path for result in report.results if result.failed}
    error = report.departure
    if error is None or error.first_operation is None:
        if paths == {"decode"}:
            return "only decoding fails: prefill agrees, so look at the caches and the one-token step"
        if paths == {BATCHED}:
            return "only batches fail: each prompt alone agrees, so look at padding and at what rows of a batch share"
    if error is None:
        return "no layer departs by more than rounding"
    first = error.first_operation
    if first is None and error.name == HEAD:
        return "no layer departs, alone or along our own trajectory: look at how chunks and positions enter the model"
    if first is None:
        said = f"first to depart: {error.name}, along our own trajectory; no operation of it does alone"
        said += _standing_out(report, error)
        return said + (_ties(error) or _adds_up(report))
    found = f"first to depart: {error.name}, {first.name} ({scientific(first.largest, 1)}): {first.how}"
    if first.how.startswith(NOT_FINITE_THERE):
        return f"{found}\nthe original is damaged, or overflows in {report.setup.reference_dtype or 'float32'}"
    if first.name in _HALVES and report.setup.level == "logits":
        found += f"\nthe fault is in the {_HALVES[first.name]}; --level layers names the operation"
    return f"{found}{_weights(report, error)}"


def _standing_out(report: Findings, error: LayerError) -> str:
    found = stands_out(report.layers, error)
    if found is None:
        return ""
    operation, ratio = found
    return (
        f"\nits {operation.name} ({scientific(operation.largest, 1)}) errs {times(ratio)} times as much as in any"
        " other layer"
    )


def _weights(report: Findings, error: LayerError) -> str:
    """Whether the weights of the layer that departs are to blame."""
    checks = [check for check in report.weights if check.name.startswith(tensors_of(error.name))]
    wrong = [check for check in checks if not check.passed]
    if not checks:
        return ""
    if not wrong:
        return (
            f"\nthe {len(checks)} tensors of {error.name} are what their source makes them:"
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
