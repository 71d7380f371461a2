"""A report as one self-contained page: the verdict first, then pictures, then the tables of the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from msport.report.layout import scientific, times, utc
from msport.report.page import Banner, cards, heading, paragraph, remarks, render, section
from msport.report.table import Table
from msport.validate.findings import Findings
from msport.validate.verdict.sentences import describe_sides, verdict
from msport.validate.views.pictures import (
    differences_picture,
    layers_picture,
    operations_picture,
    positions_picture,
    routing_picture,
)
from msport.validate.views.tables import layer_table, operation_table, result_table, text_table, weight_table

_TEXT_WIDTH = 110


def render_html(report: Findings) -> str:
    """The page; it opens without a network and holds everything but the token ids and the single errors."""
    headline, *details = verdict(report).splitlines()
    word, _, said = headline.partition(": ")
    banner = Banner("good" if report.passed else "bad", word, (said, *details))
    body = [cards(list(_cards(report)))]
    if report.layers:
        body += [section("Error by layer", *_layers(report)), *_routing(report)]
    if report.results:
        body += _logits(report)
    if report.weights:
        body.append(section("Weights", *_weights(report)))
    if report.rounding:
        body.append(section("Rounding", remarks(report.rounding)))
    if report.notes:
        body.append(section("What this run could not show", remarks(report.notes)))
    body.append(section("Setup", _setup_table(report).html()))
    sides = f"{describe_sides(report)}; {utc(report.setup.date)}"
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
        yield "peak memory", f"{report.peak_bytes / 1e9:.1f} GB"


def _layers(report: Findings) -> Iterator[str]:
    yield paragraph("The line is our own trajectory, the dots are blocks that were given the reference's own input.")
    yield layers_picture(report)
    yield layer_table(report).html()
    departure = report.departure
    if departure is not None and len(departure.operations) > 1:
        yield heading(f"Inside {departure.name}, operation by operation")
        yield operations_picture(report, departure)
        yield operation_table(departure).html()


def _routing(report: Findings) -> Iterator[str]:
    checks = [error.routing for error in report.layers if error.routing is not None]
    if not checks:
        return
    said = "tokens that chose other experts than the reference, along our own trajectory."
    if all(check.agreement == 1.0 for check in checks):
        yield section("Router agreement", paragraph(f"In no layer are there {said}"))
    else:
        yield section("Router agreement", paragraph(f"Share of {said}"), routing_picture(report))


def _logits(report: Findings) -> Iterator[str]:
    texts = text_table(report, _TEXT_WIDTH)
    if texts.rows:
        yield section("Prompts", texts.html())
    said = paragraph("Relative L2 error of each token's logits.")
    yield section("Error by position", said, positions_picture(report), result_table(report).html())
    yield section("Distribution of logit differences", differences_picture(report))


def _weights(report: Findings) -> Iterator[str]:
    if report.setup.level != "weights" and report.departure is not None:
        yield paragraph(f"The tensors of {report.departure.name} against their source.")
    yield weight_table(report.weights).html()


def _setup_table(report: Findings) -> Table:
    setup = report.setup
    stated = [(name, getattr(setup, name)) for name in type(setup).__slots__ if name not in ("versions", "date")]
    seconds = [(phase, f"{value:.1f} s") for phase, value in (report.seconds or {}).items()]
    values = [("began", utc(setup.date)), *stated, *setup.versions.items(), *seconds]
    rows = [(name.replace("_", " "), _said(value)) for name, value in values if value is not None]
    return Table(("setting", "value"), rows, "<<")


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
