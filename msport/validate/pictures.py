"""What a report shows as pictures."""

from __future__ import annotations

from msport.validate.chart import Series, bar_chart, error_chart, row_chart
from msport.validate.findings import Findings
from msport.validate.layers import LayerError
from msport.validate.metrics import DIFFERENCE_EDGES
from msport.validate.tolerance import rounding

_SHORT = {"embed_tokens": "embed", "lm_head": "head"}


def layers_picture(report: Findings) -> str:
    """Drift of our own trajectory, and the error of each isolated half, station by station."""
    names = [_SHORT.get(error.name, error.name.removeprefix("layers.")) for error in report.layers]
    series = [
        Series("drift of our own trajectory", 0, [error.largest for error in report.layers]),
        Series("attention alone", 0, [error.attention for error in report.layers], dots=True),
        Series("feed-forward alone; last, the head", 0, [error.feed_forward for error in report.layers], dots=True),
    ]
    limits = [(report.setup.tolerance, "tolerance of the logits"), (_departs_from(report), "a block alone departs")]
    return error_chart(series, limits, across="layer", names=names)


def operations_picture(report: Findings, error: LayerError) -> str:
    """The operations of one isolated layer, in the order in which they run."""
    rows = [(operation.name, operation.largest, operation.departs) for operation in error.operations]
    return row_chart(rows, (_departs_from(report), "departs"), across="error, given the reference's own input")


def _departs_from(report: Findings) -> float:
    return rounding(report.setup.dtype or "float32", report.setup.reference_dtype or "float32")


def positions_picture(report: Findings) -> str:
    """The error of every token: a colour for each prompt, a line for its prefill and dots for the other paths."""
    prompts = list(dict.fromkeys(each.prompt for each in report.results))
    series = [
        Series(
            each.title,
            each.start,
            each.errors.relative_l2.tolist(),
            dots=each.path != "prefill",
            colour=prompts.index(each.prompt),
        )
        for each in report.results
    ]
    return error_chart(series, [(report.setup.tolerance, "tolerance")], across="position in the prompt")


def routing_picture(report: Findings) -> str:
    """The share of tokens whose experts are the reference's, layer by layer."""
    checks = [(error.name, error.routing) for error in report.layers if error.routing is not None]
    bars = [
        (
            name.removeprefix("layers."),
            check.agreement,
            f"{name}: {check.agreeing} of {check.tokens} tokens"
            + (f", else a lead of at most {check.margin:.1e}" if check.agreeing < check.tokens else ""),
        )
        for name, check in checks
    ]
    lowest = min(height for _, height, _ in bars)
    return bar_chart(bars, across="layer", floor=0.0 if lowest < 0.9 else (0.9 if lowest < 0.99 else 0.99))


def differences_picture(report: Findings) -> str:
    """A histogram of the differences of single logits."""
    counts = sum(result.errors.differences.sum(axis=0) for result in report.results)
    total = max(1, int(counts.sum()))
    used = [number for number, count in enumerate(counts) if count]
    first, last = (max(0, used[0] - 1), min(len(counts), used[-1] + 2)) if used else (0, 1)
    bars = []
    for number in range(first, last):
        share, edge = counts[number] / total, DIFFERENCE_EDGES[number]
        label = f"1e{edge:g}" if edge == int(edge) else ""
        said = f"from {10**edge:.1e}" if number else "less, or equal"
        bars.append((label, float(share), f"{said}: {int(counts[number]):,} logits, {share:.2%}"))
    return bar_chart(bars, across="difference of a logit, relative")
