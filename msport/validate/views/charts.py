"""The charts of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msport.report import chart
from msport.report.formatting import exact_percent, power_of_ten, scientific
from msport.report.frame import Limit, Point
from msport.report.scale import Scale, decades, places
from msport.validate.compare.layers import LayerError
from msport.validate.compare.metrics import DIFFERENCE_EDGES
from msport.validate.findings import Findings
from msport.validate.verdict.limits import rounding

_SHORT = {"embed_tokens": "embed", "lm_head": "head"}


def layer_chart(report: Findings) -> str:
    """Drift of our own trajectory, and the error of each isolated half, station by station."""
    names = [_SHORT.get(error.name, error.name.removeprefix("layers.")) for error in report.layers]
    series = [
        _of_layers(report, "drift of our own trajectory", [error.largest for error in report.layers], line=True),
        _of_layers(report, "attention alone", [error.attention for error in report.layers]),
        _of_layers(report, "feed-forward alone; last, the head", [error.feed_forward for error in report.layers]),
    ]
    limits = [(report.setup.tolerance, "tolerance of the logits"), (_departs_from(report), "a block alone departs")]
    return _errors(series, places(len(names) - 1, names), limits, across="layer")


def _of_layers(report: Findings, title: str, errors: Sequence[float | None], line: bool = False) -> chart.Series:
    layers = enumerate(zip(report.layers, errors, strict=True))
    points = [Point.single(at, layer.name, error) for at, (layer, error) in layers if error is not None]
    return chart.Series(title, points, line=line, dots=not line)


def position_chart(report: Findings) -> str:
    """The error of every token: a colour for each prompt, a line for its prefill, dots for decoding and batches."""
    prompts = list(dict.fromkeys(each.prompt for each in report.results))
    series = [
        chart.Series(
            each.title,
            [Point.single(at, f"position {at}", error) for at, error in enumerate(each.errors.relative_l2, each.start)],
            line=each.path == "prefill",
            dots=each.path != "prefill",
            colour=prompts.index(each.prompt),
        )
        for each in report.results
    ]
    last = max((each.start + len(each.errors) - 1 for each in report.results), default=1)
    across = "position in the prompt (lines: prefill; dots: decoding and batches)"
    return _errors(series, places(last), [(report.setup.tolerance, "tolerance")], across=across)


def _errors(series: Sequence[chart.Series], x: Scale, limits: Sequence[Limit], *, across: str) -> str:
    y = decades([point.value for one in series for point in one.points] + [limit for limit, _ in limits])
    return chart.line_chart(series, x, y, across=across, up="relative L2 error", show=scientific, limits=limits)


def operation_chart(report: Findings, error: LayerError) -> str:
    """The operations of one isolated layer, in the order in which they run."""
    rows = []
    for each in error.operations:
        size, kind = scientific(each.largest), "bad" if each.departs else "s0"
        note = "" if math.isfinite(each.largest) else size
        mark = chart.Mark(each.largest, f"{each.name}: {size}", kind, note=note)
        rows.append(chart.ChartRow(each.name, [mark], bad=each.departs))
    limit = _departs_from(report)
    x = decades([each.largest for each in error.operations] + [limit])
    across = "relative L2 error, given the reference's own input"
    return chart.row_chart(rows, x, across=across, limits=[(limit, "departs")])


def routing_chart(report: Findings) -> str:
    """The share of tokens with other experts than the reference, layer by layer."""
    checks = [(error.name, error.routing) for error in report.layers if error.routing is not None]
    shares = [
        Point.single(at, f"{name}, {check.tokens - check.agreeing} of {check.tokens} tokens", 1.0 - check.agreement)
        for at, (name, check) in enumerate(checks)
    ]
    names = [name.removeprefix("layers.") for name, _ in checks]
    up = "share of tokens with other experts"
    return chart.bar_chart(names, [("other experts", shares)], up=up, show=exact_percent, across="layer")


def difference_chart(report: Findings) -> str:
    """A histogram of the differences of single logits, with a separate bar for tokens that are not finite."""
    counts = sum(result.errors.differences.sum(axis=0) for result in report.results)
    tokens, lost = report.tokens, report.not_finite
    share = lost / max(1, tokens)  # all tokens have the same number of logits
    total = max(1, int(counts.sum())) / (1.0 - share or 1.0)
    used = [number for number, count in enumerate(counts) if count]
    bins = [_bin(number, int(counts[number]), counts[number] / total) for number in used]
    first = DIFFERENCE_EDGES[0]  # the beginning of the bin for all smaller differences, including zero
    low, high = math.floor(bins[0].low if bins else first), math.ceil(bins[-1].high if bins else first + 1)
    ticks = ((float(at), "less" if at == first else power_of_ten(at)) for at in range(low, high + 1))
    apart = chart.Bin(0.0, 0.0, share, f"not finite: the logits of {lost} of {tokens} tokens", "not finite")
    return chart.distribution(
        bins,
        Scale(low, high, tuple(ticks)),
        across="difference of a logit, as a share of the logits' root mean square",
        up="share of all logits",
        apart=apart if lost else None,
    )


def _bin(number: int, count: int, share: float) -> chart.Bin:
    edge = DIFFERENCE_EDGES[number]
    said = f"from {10**edge:.1e}" if number else "less, or equal"
    return chart.Bin(edge, edge + 0.25, share, f"{said}: {count:,} logits, {share:.2%}")


def _departs_from(report: Findings) -> float:
    return rounding("float32") if report.threshold is None else report.threshold
