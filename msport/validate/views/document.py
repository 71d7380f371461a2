"""A report as JSON values; ``docs/schemas/validate.schema.json`` describes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from msport.validate.compare.layers import LayerError, OperationError, stands_out
from msport.validate.compare.metrics import DIFFERENCE_EDGES
from msport.validate.compare.results import PromptResult
from msport.validate.compare.weights import TensorCheck
from msport.validate.findings import Findings
from msport.validate.prompts import Prompt
from msport.validate.verdict.rules import Judgement

SCHEMA = "msport.validate/5"


def document_of(report: Findings) -> dict[str, Any]:
    """`report` as JSON values; an error that is not finite is null."""
    prompts = {result.prompt.name: result.prompt for result in report.results}
    return {
        "schema": SCHEMA,
        "passed": report.passed,
        **{name: getattr(report.setup, name) for name in type(report.setup).__slots__},
        "versions": dict(report.setup.versions),
        "prompts": [_prompt(prompt) for prompt in prompts.values()],
        "results": [_result(result) for result in report.results],
        "difference_edges": list(DIFFERENCE_EDGES) if report.results else [],
        "judgement": _judgement(report.judgement),
        "noise": _noise(report),
        "layers": [_layer(error) for error in report.layers],
        "first_departure": report.first_departure,
        "fault": _fault(report),
        "weights": [_check(check) for check in report.weights],
        "rounding": list(report.rounding),
        "notes": list(report.notes),
        "seconds": dict(report.seconds or {}),
        "peak_bytes": report.peak_bytes,
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {"name": prompt.name, "text": prompt.text, "ids": list(prompt.ids)}


def _result(result: PromptResult) -> dict[str, Any]:
    errors = result.errors
    return {
        "prompt": result.prompt.name,
        "path": result.path,
        "start": result.start,
        "tokens": len(errors),
        "failed": result.failed,
        "worst_position": result.start + result.worst,
        "top1": float(errors.top1.mean()),
        "top5_overlap": float(errors.overlap.mean()),
        "relative_l2": _finite_list(errors.relative_l2),
        "kl": _finite_list(errors.kl),
        "max_abs": _finite_list(errors.max_abs),
        "margin": _finite_list(errors.margin),
        "likeliest": errors.likeliest.tolist(),
        "likeliest_ours": errors.likeliest_ours.tolist(),
        "token_passed": (~result.failing).tolist(),
        "differences": errors.differences.sum(axis=0).tolist(),
    }


def _judgement(judgement: Judgement | None) -> dict[str, Any] | None:
    if judgement is None:
        return None
    return {
        "passed": judgement.passed,
        "excused": judgement.excused,
        "following": judgement.following,
        "swapped": judgement.swapped,
        "checks": [
            {
                "metric": check.metric,
                "statistic": check.statistic,
                "error": _finite(check.error),
                "noise": _finite(check.noise),
                "factor": check.factor,
                "passed": check.passed,
            }
            for check in judgement.checks
        ],
    }


def _noise(report: Findings) -> dict[str, Any] | None:
    if report.noise is None:
        return None
    return {
        "dtype": report.noise.dtype,
        "tokens": [len(tokens) for tokens in report.noise.tokens],
        **{field: _finite_list(report.noise.of(field)) for field in ("relative_l2", "root_kl", "max_abs")},
    }


def _layer(error: LayerError) -> dict[str, Any]:
    routing = error.routing
    return {
        "layer": error.layer,
        "name": error.name,
        "relative_l2_max": _finite(error.largest),
        "relative_l2_mean": _finite(error.mean),
        "prompt": error.prompt,
        "position": error.position,
        "operations": [_operation(operation) for operation in error.operations],
        "routing": None
        if routing is None
        else {
            "tokens": routing.tokens,
            "agreeing": routing.agreeing,
            "margin": _finite(routing.margin),
            "near_ties": routing.near_ties,
            "wrong": routing.wrong,
        },
    }


def _operation(operation: OperationError) -> dict[str, Any]:
    return {
        "name": operation.name,
        "relative_l2_max": _finite(operation.largest),
        "relative_l2_mean": _finite(operation.mean),
        "prompt": operation.prompt,
        "position": operation.position,
        "departs": operation.departs,
        "how": operation.how,
    }


def _fault(report: Findings) -> dict[str, Any] | None:
    error = report.departure
    if error is None:
        return None
    operation = error.first_operation
    if operation is None and (found := stands_out(report.layers, error)) is not None:
        operation = found[0]
    return {
        "layer": error.name,
        "operation": None if operation is None else operation.name,
        "how": "" if operation is None else operation.how,
    }


def _check(check: TensorCheck) -> dict[str, Any]:
    return {
        "name": check.name,
        "transform": check.transform,
        "elements": check.elements,
        "different": check.different,
        "max_abs": _finite(check.max_abs),
        "fault": check.fault,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _finite_list(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [_finite(value) for value in values.tolist()]
