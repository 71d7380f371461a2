"""Reports of validations that were never run."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from msport.validate.compare.cost import Cost, TextCost
from msport.validate.compare.layers import LayerError, OperationError
from msport.validate.compare.metrics import measure
from msport.validate.compare.results import PromptResult
from msport.validate.compare.routing import RoutingCheck
from msport.validate.findings import Setup
from msport.validate.prompts import Prompt
from msport.validate.reference.noise import FIELDS, Noise
from msport.validate.report import Report
from msport.validate.verdict.rules import judge

SETUP = Setup(
    folder="a<b>-ms",
    architecture="GptOssForCausalLM",
    source="a<b>",
    revision=None,
    checkpoint="0123456789abcdef" * 4,
    reference="a<b>",
    level="logits",
    rule="rounding",
    tolerance=1e-2,
    seed=0,
    date="2026-11-21T08:00:00+00:00",
    versions={
        "msport": "0",
        "python": "3.11",
        "numpy": "1.26",
        "mindspore": "2.10.0",
        "transformers": "4.57.1",
        "torch": "2.13.0",
    },
    device="CPU",
    dtype="float32",
)

LAYERS = (
    LayerError(0, "embed_tokens", 0.0, 0.0, "random", 3),
    LayerError(1, "layers.0", 1e-6, 5e-7, "random", 3, (OperationError("o_proj", 1e-6, 5e-7, "random", 3),)),
    LayerError(
        2,
        "layers.1",
        0.5,
        0.25,
        "random",
        3,
        (
            OperationError("o_proj", 1e-6, 5e-7, "random", 3),
            OperationError("experts", np.inf, 0.25, "random", 3, True, "every token, 2 times the reference"),
        ),
        RoutingCheck(tokens=10, agreeing=9, margin=1e-7, near_ties=1, wrong=0),
    ),
)


def make_result(name: str = "random", path: str = "prefill", *, wrong: dict[int, float] | None = None) -> PromptResult:
    reference = np.random.default_rng(0).standard_normal((5, 16)).astype(np.float32)
    ours = reference * np.float32(1 + 1e-5)
    for token, factor in (wrong or {}).items():
        ours[token] *= np.float32(factor)
    return PromptResult(Prompt(name, (1, 2, 3, 4, 5)), path, 0, measure(reference, ours))


def make_report(*results: PromptResult, level: str = "logits", noise: Noise | None = None, **parts: Any) -> Report:
    """Judged by `noise`, or by the tolerance alone."""
    judgement = judge(results, noise, SETUP.tolerance) if results else None
    failing = () if judgement is None else judgement.failing
    judged = tuple(dataclasses.replace(r, failing=f) for r, f in zip(results, failing, strict=True))
    return Report(dataclasses.replace(SETUP, level=level), judged, judgement, noise, **parts)


COST = Cost(
    "original<b>",
    (TextCost("book.txt", 5, 0.25, 1.5, 0.8, 4, 12.5, 10.0),) * 2,
    TextCost("all", 10, 0.25, 1.5, 0.8, 8, 12.5, 10.0),
)


def make_noise(size: float = 1e-5) -> Noise:
    """What was measured of one prompt of five tokens."""
    return Noise("float32", (np.full((5, len(FIELDS)), size),), (size,) * 3, (0.0,) * 2)
