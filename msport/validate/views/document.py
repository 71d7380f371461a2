"""Converts a report to JSON values; ``docs/schemas/validate.schema.json`` describes them."""

from __future__ import annotations

from typing import Any

from msport.report.document import json_values
from msport.validate.compare.layers import LayerError, OperationError
from msport.validate.compare.metrics import DIFFERENCE_EDGES
from msport.validate.compare.results import PromptResult
from msport.validate.findings import Findings
from msport.validate.prompts import Prompt
from msport.validate.reference.noise import Noise
from msport.validate.verdict.rules import Check, Judgement

SCHEMA = "msport.validate/6"


def document_of(report: Findings) -> dict[str, Any]:
    """`report` as JSON values; an error that is not finite is null."""
    prompts = {result.prompt.name: result.prompt for result in report.results}
    document = {
        "schema": SCHEMA,
        "passed": report.passed,
        **json_values(report.setup),
        "prompts": [_prompt(prompt) for prompt in prompts.values()],
        "results": [_result(result) for result in report.results],
        "difference_edges": DIFFERENCE_EDGES if report.results else [],
        "judgement": report.judgement and _judgement(report.judgement),
        "noise": report.noise and _noise(report.noise),
        "layers": [_layer(error) for error in report.layers],
        "first_departure": report.first_departure,
        "fault": report.departure and _fault(report.departure, report.fault),
        "weights": report.weights,
        "cost": report.cost and {**json_values(report.cost), "passed": report.cost.within},
        "rounding": report.rounding,
        "notes": report.notes,
        "seconds": report.seconds or {},
        "peak_bytes": report.peak_bytes,
    }
    values: dict[str, Any] = json_values(document)
    return values


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"name": prompt.name, "text": prompt.text, "ids": prompt.ids}


def _result(result: PromptResult) -> dict[str, Any]:
    errors = result.errors
    of_tokens = ("relative_l2", "kl", "max_abs", "margin", "likeliest", "likeliest_ours")
    return {
        "prompt": result.prompt.name,
        "path": result.path,
        "start": result.start,
        "tokens": len(errors),
        "failed": result.failed,
        "worst_position": result.start + result.worst,
        "top1": errors.top1.mean(),
        "top5_overlap": errors.overlap.mean(),
        **{name: getattr(errors, name) for name in of_tokens},
        "token_passed": ~result.failing,
        "differences": errors.differences.sum(axis=0),
    }


def _judgement(judgement: Judgement) -> dict[str, Any]:
    counts = {name: getattr(judgement, name) for name in ("passed", "excused", "following", "swapped")}
    return {**counts, "checks": [_check(check) for check in judgement.checks]}


def _check(check: Check) -> dict[str, Any]:
    return {**json_values(check), "passed": check.passed}


def _noise(noise: Noise) -> dict[str, Any]:
    errors = {name: noise.of(name) for name in ("relative_l2", "root_kl", "max_abs")}
    return {"dtype": noise.dtype, "tokens": [len(tokens) for tokens in noise.tokens], **errors}


def _layer(error: LayerError) -> dict[str, Any]:
    operations = [{**_error(each), "departs": each.departs, "how": each.how} for each in error.operations]
    return {"layer": error.layer, **_error(error), "operations": operations, "routing": error.routing}


def _error(error: LayerError | OperationError) -> dict[str, Any]:
    return {
        "name": error.name,
        "relative_l2_max": error.largest,
        "relative_l2_mean": error.mean,
        "prompt": error.prompt,
        "position": error.position,
    }


def _fault(error: LayerError, operation: OperationError | None) -> dict[str, Any]:
    if operation is None:
        return {"layer": error.name, "operation": None, "how": ""}
    return {"layer": error.name, "operation": operation.name, "how": operation.how}
