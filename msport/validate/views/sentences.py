"""The verdict in a few sentences: passed or failed, why, and where to look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msport.report.formatting import counted, in_other_dtypes, scientific, times
from msport.validate.compare.cost import Cost
from msport.validate.compare.departure import NOT_FINITE_THERE
from msport.validate.compare.layers import LayerError, stands_out
from msport.validate.compare.logits import BATCHED
from msport.validate.compare.results import PromptResult
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.findings import Findings
from msport.validate.operations import ATTENDED, HEAD, OUTPUT, tensors_of
from msport.validate.verdict.rules import LEAD, Check, Judgement

# Level logits knows only the residual stream after each half of a layer.
_HALVES = {ATTENDED: "attention", OUTPUT: "feed-forward"}


def describe_comparison(report: Findings) -> str:
    """The two sides that were compared."""
    setup = report.setup
    if setup.level == "weights":
        return f"{setup.folder} against {setup.reference}, tensor by tensor"
    versions = setup.versions
    weights = in_other_dtypes(setup.storage, setup.dtype or "")
    return (
        f"{setup.folder} ({setup.architecture}) in {setup.dtype}{weights} on {setup.device},"
        f" MindSpore {versions['mindspore']},"
        f" against {'the same quantised weights' if setup.own_weights else setup.reference}"
        f" in {setup.reference_dtype or 'float32'},"
        f" Transformers {versions['transformers']}, torch {versions['torch']}"
    )


def describe_weights(report: Findings) -> str:
    """How many weights lie in each encoding that is not plain, and what they were made from; empty without any."""
    setup = report.setup
    kinds = "; ".join(f"{counted(count, 'weight')} in {name}" for name, count in setup.encodings.items())
    return f"{kinds}; made from {setup.source}" if kinds else ""


def describe_cost(cost: Cost) -> str:
    """The two sides of the cost of quantisation."""
    return f"cost of quantisation: the reference on these weights beside the reference on {cost.original}"


def verdict(report: Findings) -> str:
    """The outcome, followed, if the model failed, by what is known about the fault."""
    if report.setup.level == "weights":
        return _of_weights(report)
    judgement, worst = report.judgement, report.worst
    if judgement is None or worst is None:
        return "FAILED: nothing was compared"
    if report.passed:
        lines = [f"PASSED: {_why_it_passed(report, judgement, worst)}"]
    else:
        first, *others = _why_it_failed(report, judgement, worst)
        lines = [f"FAILED: {first}", *others]
    return "\n".join([*lines, *_excused(judgement), *_cost_within(report.cost)])


def _of_weights(report: Findings) -> str:
    if report.passed:
        elements = sum(check.elements for check in report.weights)
        return f"PASSED: {len(report.weights)} tensors, {elements:,} elements, all match their source"
    return (
        f"FAILED: {len(_wrong(report.weights))} of {len(report.weights)} tensors do not match their source;"
        " convert it again with msport convert"
    )


def _why_it_passed(report: Findings, judgement: Judgement, worst: PromptResult) -> str:
    error = f"relative L2 error at most {scientific(worst.largest)} over {report.tokens:,} tokens"
    tolerance = f"tolerance {judgement.tolerance:g}"
    if judgement.rule == "tolerance":
        return f"{error} ({tolerance}, the only thing that was judged)"
    noise = f"{times(judgement.checks[0].ratio)} times the reference's own noise"
    weights = f"; {len(report.weights)} tensors match their source" if report.weights else ""
    return f"within rounding: {error} ({tolerance}), {noise}{weights}"


def _why_it_failed(report: Findings, judgement: Judgement, worst: PromptResult) -> Iterator[str]:
    """The broken rules, the most important first, and where to look."""
    beyond = sum(int((r.failing & ~(r.errors.relative_l2 <= judgement.tolerance)).sum()) for r in report.results)
    check = judgement.worst
    unexplained = check if check is not None and not check.passed else None
    if report.not_finite:
        yield f"{report.not_finite:,} of {report.tokens:,} tokens have logits that are not finite"
    elif beyond:
        exceed = f"{beyond:,} of {report.tokens:,} tokens exceed the tolerance {judgement.tolerance:g}"
        size = scientific(worst.largest) + (f", {_unexplained(unexplained)}" if unexplained else "")
        yield f"{exceed}; the worst has {size}, {_token(worst, worst.worst)}"
    elif unexplained and unexplained.metric != LEAD:
        yield (
            f"within {judgement.tolerance:g}, but {_unexplained(unexplained)}:"
            f" {unexplained.metric}, {unexplained.statistic}, is {scientific(unexplained.error)},"
            f" the reference's own noise {scientific(unexplained.noise)};"
            f" the worst token has {scientific(worst.largest)}, {_token(worst, worst.worst)}"
        )
    if judgement.swapped:
        yield _swapped(report, judgement)
    if report.setup.level == "layers" and not report.layers:
        yield "no layer was compared"
    if report.setup.level == "layers" and judgement.passed and report.departure is not None:
        yield f"the logits agree to {scientific(worst.largest)}, but an operation departs"
    if report.departure is None or report.departure.first_operation is None:
        yield from _wrong_weights(report, judgement, worst)
    if report.cost is not None and not report.cost.within:
        yield f"{_cost(report.cost)}, more than --max-kl {report.cost.max_kl:g}"
    if not judgement.passed or report.departure is not None:
        yield from _where_to_look(report)


def _cost(cost: Cost) -> str:
    total = cost.total
    perplexity = ""
    if total.perplexity is not None and total.perplexity_original is not None:
        perplexity = f", perplexity {total.perplexity:.4g} instead of {total.perplexity_original:.4g}"
    return (
        f"quantisation costs a mean KL of {scientific(total.kl_mean)} over {counted(total.tokens, 'token')} of text:"
        f" at most {scientific(total.kl_max)}, top-1 {total.top1:.1%}{perplexity}"
    )


def _cost_within(cost: Cost | None) -> Iterator[str]:
    if cost is not None and cost.within:
        yield f"{_cost(cost)} ({'not judged' if cost.max_kl is None else f'within --max-kl {cost.max_kl:g}'})"


def _unexplained(check: Check) -> str:
    return f"{times(check.ratio)} times what rounding explains"


def _swapped(report: Findings, judgement: Judgement) -> str:
    """The number of tokens with another top-1, and the one with the largest lead in the reference."""
    swapped = [(r, int(i)) for r in report.results for i in (r.failing & ~r.errors.top1 & r.errors.finite).nonzero()[0]]
    result, index = max(swapped, key=lambda found: found[0].errors.regret[found[1]])
    return (
        f"{judgement.swapped:,} tokens rank another token first although the reference is sure: it leads by"
        f" {result.errors.regret[index]:.3g}, {_token(result, index)}"
    )


def _token(result: PromptResult, index: int) -> str:
    """The position of a token, and the token that each side ranks first there."""
    errors = result.errors
    place = f"'{result.title}' at position {result.start + index}"
    if not errors.finite[index]:
        return place
    theirs, ours = int(errors.likeliest[index]), int(errors.likeliest_ours[index])
    if theirs == ours:
        return f"{place}, where both rank token {theirs} first"
    return f"{place}, where we rank token {ours} first, the reference {theirs}"


def _wrong_weights(report: Findings, judgement: Judgement, worst: PromptResult) -> Iterator[str]:
    """The tensors that are wrong."""
    wrong = _wrong(report.weights)
    if wrong:
        agreeing = f"the logits agree to {scientific(worst.largest)} within rounding, but " if judgement.passed else ""
        yield (
            f"{agreeing}{len(wrong)} of {len(report.weights)} tensors do not match their source:"
            f" {_how_wrong(wrong[0])}; convert again, and see --level weights"
        )


def _where_to_look(report: Findings) -> Iterator[str]:
    error = report.departure
    operation = None if error is None else error.first_operation
    paths = {result.path for result in report.results if result.failed}
    if error is not None and operation is not None:
        yield f"first to depart: {error.name}, {operation.name} ({scientific(operation.largest, 1)}): {operation.how}"
        if operation.how.startswith(NOT_FINITE_THERE):
            yield f"the original is damaged, or overflows in {report.setup.reference_dtype or 'float32'}"
            return
        if operation.name in _HALVES and report.setup.level == "logits":
            yield f"the fault is in the {_HALVES[operation.name]}; --level layers names the operation"
        yield from _weights_of(error, report)
    elif paths == {"decode"}:
        yield "only decoding fails: prefill agrees, so look at the caches and the one-token step"
    elif paths == {BATCHED}:
        yield "only batches fail: each prompt alone agrees, so look at padding and at what rows of a batch share"
    elif error is None:
        yield "no layer departs by more than rounding"
    elif error.name == HEAD and stands_out(report.layers, error) is None:
        yield "no layer departs, isolated or along our own trajectory: look at how chunks and positions enter the model"
    else:
        yield f"first to depart: {error.name}; no operation of it departs alone"
        yield from _behind_the_drift(error, report)


def _weights_of(error: LayerError, report: Findings) -> Iterator[str]:
    """Whether the weights of the layer that departs are wrong."""
    checks = [check for check in report.weights if check.name.startswith(tensors_of(error.name))]
    wrong = _wrong(checks)
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield f"its weights are wrong: {_how_wrong(wrong[0])}{more}; convert again, and see --level weights"
    elif checks:
        yield (
            f"the {len(checks)} tensors of {error.name} match their source:"
            " the fault is in config.json or in the computation"
        )


def _behind_the_drift(error: LayerError, report: Findings) -> Iterator[str]:
    """Possible causes of a drift of our own trajectory if no isolated operation departs."""
    found = stands_out(report.layers, error)
    if found is not None:
        operation, ratio = found
        size = scientific(operation.largest, 1)
        yield f"its {operation.name} ({size}) errs {times(ratio)} times as much as in any other layer"
    routing = error.routing
    short = sorted({report.setup.dtype or "float32", report.setup.reference_dtype or "float32"} - {"float32"})
    if routing is not None and routing.agreeing < routing.tokens:
        yield (
            f"{counted(routing.tokens - routing.agreeing, 'token')} chose other experts there, where the reference's"
            f" lead was at most {routing.margin:.1e}: a near tie, which rounding decides"
        )
    elif short:
        yield f"rounding to {short[0]} accumulates over the layers; use float32 on both sides to tell it from a fault"


def _excused(judgement: Judgement) -> Iterator[str]:
    if judgement.excused:
        yield f"{judgement.excused:,} tokens are excused: their experts nearly tie, so rounding decides"
    if judgement.following:
        yield (
            f"{judgement.following:,} tokens after a near tie of experts see its keys; only the median over all"
            " tokens counts them"
        )


def _wrong(checks: Sequence[TensorCheck]) -> list[TensorCheck]:
    return [check for check in checks if not check.passed]


def _how_wrong(check: TensorCheck) -> str:
    return f"{check.name} {check.fault or f'differs in {check.different:,} of {check.elements:,} elements'}"
