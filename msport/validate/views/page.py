"""A report as one self-contained page: the verdict, then charts, then the tables of the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from msport.report.formatting import scientific, times, utc
from msport.report.page import Banner, cards, heading, paragraph, remarks, render, section, settings
from msport.sizing.units import format_size
from msport.validate.findings import Findings
from msport.validate.views.charts import difference_chart, layer_chart, operation_chart, position_chart, routing_chart
from msport.validate.views.sentences import describe_comparison, describe_cost, describe_weights, verdict
from msport.validate.views.tables import (
    cost_table,
    layer_table,
    operation_table,
    result_table,
    text_table,
    weight_table,
)

_TEXT_WIDTH = 110


def render_page(report: Findings) -> str:
    """The page. It needs no network and holds everything except token ids and the errors of single tokens."""
    headline, *details = verdict(report).splitlines()
    word, _, said = headline.partition(": ")
    banner = Banner("good" if report.passed else "bad", word, (said, *details))
    body = [
        cards(_cards(report)),
        section("Error by layer", *_layers(report)),
        section("Router agreement", *_routing(report)),
        *_logits(report),
        section("Cost of quantisation", *_cost(report)),
        section("Weights", *_weights(report)),
        section("Rounding", remarks(report.rounding)),
        section("What this run could not show", remarks(report.notes)),
        section("Setup", _settings(report)),
    ]
    weights = describe_weights(report)
    sides = f"{describe_comparison(report)}; {weights + '; ' if weights else ''}{utc(report.setup.date)}"
    return render("msport validate", report.setup.folder, sides, [banner], body)


def _cards(report: Findings) -> Iterator[tuple[str, str]]:
    if report.worst is not None:
        top1 = sum(int(result.errors.top1.sum()) for result in report.results) / max(1, report.tokens)
        yield "largest relative L2 error", scientific(report.worst.largest)
        if report.judgement is not None and report.judgement.worst is not None:
            yield "times what rounding explains", times(report.judgement.worst.ratio)
        yield "tolerance", f"{report.setup.tolerance:g}"
        yield "tokens compared", f"{report.tokens:,}"
        yield "top-1 agrees", f"{top1:.2%}"
        yield "largest KL, nats", scientific(max(result.errors.kl.max(initial=0.0) for result in report.results))
    if report.setup.level == "weights":
        yield "tensors", f"{len(report.weights):,}"
        yield "elements", f"{sum(check.elements for check in report.weights):,}"
    if report.seconds:
        yield "time", f"{sum(report.seconds.values()):,.0f} s"
    if report.peak_bytes is not None:
        yield "peak memory", format_size(report.peak_bytes)


def _layers(report: Findings) -> Iterator[str]:
    if not report.layers:
        return
    yield paragraph("The line is our own trajectory, the dots are blocks that were given the reference's own input.")
    yield layer_chart(report)
    yield layer_table(report).html()
    departure = report.departure
    if departure is not None and len(departure.operations) > 1:
        yield heading(f"Inside {departure.name}, operation by operation")
        yield operation_chart(report, departure)
        yield operation_table(departure).html()


def _routing(report: Findings) -> Iterator[str]:
    checks = [error.routing for error in report.layers if error.routing is not None]
    if not checks:
        return
    if all(check.agreement == 1.0 for check in checks):
        yield paragraph("In every layer all tokens chose the experts of the reference, along our own trajectory.")
    else:
        yield paragraph("Share of tokens that chose other experts than the reference, along our own trajectory.")
        yield routing_chart(report)


def _logits(report: Findings) -> Iterator[str]:
    if not report.results:
        return
    texts = text_table(report, _TEXT_WIDTH)
    yield section("Prompts", texts.html() if texts.rows else "")
    said = paragraph("Relative L2 error of each token's logits.")
    yield section("Error by position", said, position_chart(report), result_table(report).html())
    yield section("Distribution of logit differences", difference_chart(report))


def _weights(report: Findings) -> Iterator[str]:
    if not report.weights:
        return
    if report.setup.level != "weights" and report.departure is not None:
        yield paragraph(f"The tensors of {report.departure.name} against their source.")
    yield weight_table(report.weights).html()


def _cost(report: Findings) -> Iterator[str]:
    if report.cost is not None:
        yield paragraph(describe_cost(report.cost))
        yield cost_table(report.cost).html()


def _settings(report: Findings) -> str:
    setup = report.setup
    stated = {
        name: getattr(setup, name) for name in type(setup).__slots__ if name not in ("versions", "date", "encodings")
    }
    seconds = {phase: f"{value:.1f} s" for phase, value in (report.seconds or {}).items()}
    return settings({"began": utc(setup.date), **stated, **setup.versions, **seconds})
