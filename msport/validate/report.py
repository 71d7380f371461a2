"""The verdict and everything it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from msport.validate.layers import LayerError
from msport.validate.metrics import TokenErrors
from msport.validate.prompts import Prompt
from msport.validate.weights import TensorCheck

SCHEMA = "msport.validate/1"


@dataclass(frozen=True, slots=True)
class Setup:
    """What was judged, with what, on what: enough to repeat it.

    `checkpoint` is the SHA-256 over the tensors' hashes in the manifest. `device`, `dtype` and `operators` are those of
    our side; the reference computes in float32 on the CPU.
    """

    folder: str
    architecture: str
    source: str
    revision: str | None
    checkpoint: str
    reference: str
    level: str
    tolerance: float
    seed: int
    versions: dict[str, str]
    device: str | None = None
    dtype: str | None = None
    operators: str | None = None
    max_length: int | None = None
    prefill_chunk: int | None = None


@dataclass(frozen=True, slots=True)
class PromptResult:
    """The errors of one prompt along one path: ``prefill`` in chunks, or ``decode`` one token at a time.

    `start` is the position of the first token measured.
    """

    prompt: Prompt
    path: str
    start: int
    errors: TokenErrors

    @property
    def title(self) -> str:
        return self.prompt.name if self.path == "prefill" else f"{self.prompt.name}, {self.path}"

    @property
    def worst(self) -> int:
        """The index of the token with the largest relative L2 error."""
        return int(self.errors.relative_l2.argmax())

    def failed(self, tolerance: float) -> int:
        """How many tokens do not pass."""
        return int((~self.errors.passed(tolerance)).sum())


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of `validate_model`.

    `first_departure` is the first layer whose residual stream departs by more than rounding explains; None if none
    does, or none was compared. `notes` say what this run could not have shown. `seconds` is the time each phase took.
    """

    setup: Setup
    results: tuple[PromptResult, ...] = ()
    layers: tuple[LayerError, ...] = ()
    first_departure: int | None = None
    weights: tuple[TensorCheck, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether everything that the level judges passes; a report of nothing does not."""
        tolerance = self.setup.tolerance
        if not any(len(result.errors) for result in self.results) and not self.weights:
            return False
        if self.setup.level == "layers" and not (self.layers and all(e.largest <= tolerance for e in self.layers)):
            return False
        return not any(result.failed(tolerance) for result in self.results) and all(c.passed for c in self.weights)

    @property
    def worst(self) -> PromptResult | None:
        """The result with the largest relative L2 error."""
        return max(self.results, key=lambda result: result.errors.relative_l2.max(initial=-1.0), default=None)

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values; an error that is not finite is null."""
        setup = {name: getattr(self.setup, name) for name in Setup.__slots__}
        tolerance = self.setup.tolerance
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            **setup,
            "versions": dict(self.setup.versions),
            "prompts": [_prompt_document(result.prompt) for result in self.results if result.path == "prefill"],
            "results": [_result_document(result, tolerance) for result in self.results],
            "layers": [_layer_document(error) for error in self.layers],
            "first_departure": self.first_departure,
            "weights": [_check_document(check) for check in self.weights],
            "notes": list(self.notes),
            "seconds": dict(self.seconds or {}),
        }

    def to_json(self) -> str:
        """`to_document` as one JSON text."""
        return json.dumps(self.to_document(), ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        from msport.validate.text import render_text

        return render_text(self)


def _prompt_document(prompt: Prompt) -> dict[str, Any]:
    return {"name": prompt.name, "ids": list(prompt.ids)}


def _result_document(result: PromptResult, tolerance: float) -> dict[str, Any]:
    errors = result.errors
    return {
        "prompt": result.prompt.name,
        "path": result.path,
        "start": result.start,
        "tokens": len(errors),
        "failed": result.failed(tolerance),
        "worst_position": result.start + result.worst,
        "top1": float(errors.top1.mean()),
        "top5_overlap": float(errors.overlap.mean()),
        "relative_l2": _finite_list(errors.relative_l2),
        "kl": _finite_list(errors.kl),
        "max_abs": _finite_list(errors.max_abs),
        "token_passed": errors.passed(tolerance).tolist(),
    }


def _layer_document(error: LayerError) -> dict[str, Any]:
    return {
        "layer": error.layer,
        "relative_l2_max": _finite(error.largest),
        "relative_l2_mean": _finite(error.mean),
        "prompt": error.prompt,
        "position": error.position,
    }


def _check_document(check: TensorCheck) -> dict[str, Any]:
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
