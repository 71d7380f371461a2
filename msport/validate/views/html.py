"""A report as one self-contained page: the verdict first, then pictures, then the tables of the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msport.report.layout import Row, utc
from msport.report.page import Banner, cards, heading, paragraph, remarks, render, section, table
from msport.validate.findings import Findings
from msport.validate.verdict.sentences import describe_sides, verdict
from msport.validate.views.pictures import (
    differences_picture,
    layers_picture,
    operations_picture,
    positions_picture,
    routing_picture,
)
from msport.validate.views.tables import (
    alignment,
    error_text,
    layer_rows,
    operation_rows,
    ratio_text,
    result_groups,
    result_rows,
    text_rows,
    weight_rows,
)

_TEXT_WIDTH = 110


def render_html(report: Findings) -> str:
    """The page; it opens without a network and holds everything but the token ids and the single errors."""
    headline, *details = verdict(report).splitlines()
    word, _, said = headline.partition(": ")
    banner = Banner("good" if report.passed else "bad", word, (said, *details))
    body = [
        cards(_cards(report)),
        *_layers(report),
        *_routing(report),
        *_logits(report),
        *_weights(report),
        *(section(title, remarks(lines)) for title, lines in _remarks(report) if lines),
        section("Setup", _table(_setup_rows(report))),
    ]
    sides = f"{describe_sides(report)}; {utc(report.setup.date)}"
    return render("msport validate", report.setup.folder, sides, [banner], body)


def _cards(report: Findings) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if report.worst is not None:
        tokens = sum(len(result.errors) for result in report.results)
        top1 = sum(float(result.errors.top1.sum()) for result in report.results) / max(1, tokens)
        kl = max(float(result.errors.kl.max()) for result in report.results)
        found += [
            ("largest relative L2 error", error_text(report.worst.errors.relative_l2.max())),
            *_noise_card(report),
            ("tolerance", f"{report.setup.tolerance:g}"),
            ("tokens compared", f"{tokens:,}"),
            ("top-1 agrees", f"{top1:.2%}"),
            ("largest KL, nats", error_text(kl)),
        ]
    if report.setup.level == "weights":
        found.append(("tensors", f"{len(report.weights):,}"))
        found.append(("elements", f"{sum(check.elements for check in report.weights):,}"))
    if report.seconds:
        found.append(("time", f"{sum(report.seconds.values()):,.0f} s"))
    if report.peak_bytes is not None:
        found.append(("peak memory", f"{report.peak_bytes / 1e9:.1f} GB"))
    return found


def _noise_card(report: Findings) -> Iterator[tuple[str, str]]:
    """The error that exceeds its bound most, or comes nearest to it."""
    worst = None if report.judgement is None else report.judgement.worst
    if worst is not None:
        yield "times what rounding explains", ratio_text(worst.ratio)


def _layers(report: Findings) -> Iterator[str]:
    if not report.layers:
        return
    parts = [
        paragraph("The line is our own trajectory, the dots are blocks that were given the reference's own input."),
        layers_picture(report),
        _table(layer_rows(report), [error.layer == report.first_departure for error in report.layers]),
    ]
    departure = report.departure
    if departure is not None and len(departure.operations) > 1:
        parts += [
            heading(f"Inside {departure.name}, operation by operation"),
            operations_picture(report, departure),
            _table(operation_rows(departure), [operation.departs for operation in departure.operations]),
        ]
    yield section("Error by layer", *parts)


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
    if not report.results:
        return
    if texts := text_rows(report, _TEXT_WIDTH):
        yield section("Prompts", _table([("prompt", "text"), *texts]))
    yield section(
        "Error by position",
        paragraph("Relative L2 error of each token's logits."),
        positions_picture(report),
        _table(result_rows(report), [any(result.failed for result in group) for group in result_groups(report)]),
    )
    yield section("Distribution of logit differences", differences_picture(report))


def _weights(report: Findings) -> Iterator[str]:
    if not report.weights:
        return
    wrong = [check for check in report.weights if not check.passed]
    of_one = None if report.setup.level == "weights" else report.departure
    said = "" if of_one is None else paragraph(f"The tensors of {of_one.name} against their source.")
    yield section("Weights", said, _table(weight_rows(report.weights), [True] * len(wrong)))


def _remarks(report: Findings) -> Iterator[tuple[str, Sequence[str]]]:
    yield "Rounding", report.rounding
    yield "What this run could not show", report.notes


def _setup_rows(report: Findings) -> list[Row]:
    setup = report.setup
    stated = [(name, getattr(setup, name)) for name in type(setup).__slots__ if name not in ("versions", "date")]
    seconds = [(phase, f"{value:.1f} s") for phase, value in (report.seconds or {}).items()]
    rows = [("began", utc(setup.date)), *stated, *setup.versions.items(), *seconds]
    return [
        ("setting", "value"),
        *((name.replace("_", " "), _said(value)) for name, value in rows if value is not None),
    ]


def _said(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _table(rows: Sequence[Row], bad: Sequence[bool] = ()) -> str:
    """`bad` marks rows of the body, from the first on."""
    marks = ["bad" if number < len(bad) and bad[number] else "" for number in range(len(rows) - 1)]
    return table(rows, alignment(rows[0]), marks)
