"""From the results of the reference to a report: the stages that runs with and without torch share.

The two sides never alternate: their thread pools would compete for the cores, and both sets of weights would be in
memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

from msport.progress import Phases
from msport.sizing.costs import PREFILL_CHUNK
from msport.validate.compare.layers import first_departure, first_outlier
from msport.validate.compare.results import PromptResult
from msport.validate.findings import Setup
from msport.validate.measurement import Comparison, Measured, measure_layers, measure_logits, measure_streamed
from msport.validate.operations import ROUTER
from msport.validate.port.choice import Port
from msport.validate.precision import SIGNIFICAND
from msport.validate.prompts import Prompt
from msport.validate.reference.run import ReferenceRun, ReferenceValues
from msport.validate.report import Report
from msport.validate.request import Request
from msport.validate.verdict.limits import Limits, set_limits
from msport.validate.verdict.rules import Judgement, departs, judge
from msport.validate.views.notes import notes_on
from msport.validate.views.rounding import Dtypes, explain_rounding


def run_and_judge(request: Request, setup: Setup, port: Port, reference: ReferenceValues, phases: Phases) -> Report:
    """Runs `port`, compares it with the `reference` and decides; `setup` is what was known before the run."""
    run = reference.run
    limits = set_limits(request.tol, reference.noise, request.rule, port.dtype, run.dtype, run.narrowed_to or run.dtype)
    measured, judgement = _measure_and_judge(port, reference, limits, request.level, phases)
    departure = first_departure(measured.layers, limits.drift)
    if departure is None and not judgement.passed:
        departure = first_outlier(measured.layers, limits.operation)
    return Report(
        _completed(setup, port, run, limits, measured),
        tuple(replace(r, failing=f) for r, f in zip(measured.results, judgement.failing, strict=True)),
        judgement,
        limits.noise,
        measured.layers,
        departure,
        limits.operation,
        notes=notes_on(
            port.config, run.longest, PREFILL_CHUNK, streamed=port.streamed, given=not request.default_prompts
        ),
        rounding=_explain(port, run, limits, measured),
    )


def _measure_and_judge(
    port: Port, reference: ReferenceValues, limits: Limits, level: str, phases: Phases
) -> tuple[Measured, Judgement]:
    """Runs `port` and judges its logits; compares its layers if `level` requests it or if the logits fail.

    Near ties of experts excuse the tokens that they explain, unless an isolated operation departs.
    """
    run, recording, noise = reference.run, reference.recording, limits.noise
    layers = port.config.num_hidden_layers
    comparison = Comparison(recording, run.prompts, layers, limits.operation, limits.router)
    if port.streamed:
        measured = measure_streamed(port, comparison, phases)
        judgement = judge(measured.results, noise, limits.tolerance)
    else:
        from msport.msmodels.loading import load_model

        with phases.phase("load model"):
            model = load_model(port.folder, port.dtype, max_length=run.longest, prefill_chunk=PREFILL_CHUNK)
        measured = measure_logits(model, reference, phases)
        judgement = judge(measured.results, noise, limits.tolerance)
        mixture = recording.has_operation(ROUTER)
        if chosen := _to_locate(measured.results, run.prompts, judgement, level, mixture=mixture):
            measured = measure_layers(model, measured, replace(comparison, prompts=chosen), phases)
    if not judgement.passed and measured.undecided and not departs(measured.layers):
        judgement = judge(measured.results, noise, limits.tolerance, measured.undecided)
    return measured, judgement


def _completed(setup: Setup, port: Port, run: ReferenceRun, limits: Limits, measured: Measured) -> Setup:
    """`setup` with what is known only after the run.

    Other versions than those of the reference's packages may be of the machine that made golden values.
    """
    versions = {name: run.versions[name] for name in ("torch", "transformers")}
    return replace(
        setup,
        tolerance=limits.tolerance,
        versions=setup.versions | versions | {"mindspore": version("mindspore")},
        device=measured.device,
        dtype=port.dtype,
        packed=port.packed,
        storage=port.costs.storage,
        operators=measured.operators,
        max_length=run.longest,
        prefill_chunk=min(PREFILL_CHUNK, run.longest),
        reference_dtype=run.dtype,
        streamed=port.streamed,
    )


def _explain(port: Port, run: ReferenceRun, limits: Limits, measured: Measured) -> tuple[str, ...]:
    stored = port.stored if port.stored in SIGNIFICAND else run.source_dtype  # packed is as the reference has it
    dtypes = Dtypes(run.source_dtype, stored, port.dtype, run.dtype)
    largest = max(result.largest for result in measured.results)
    alone = [o.largest for error in measured.layers for o in error.operations if not o.departs]
    return explain_rounding(dtypes, largest, alone, limits.noise)


def _to_locate(
    results: Sequence[PromptResult], prompts: Sequence[Prompt], judgement: Judgement, level: str, *, mixture: bool
) -> Sequence[Prompt]:
    """The prompts whose layers are compared: all for level ``layers``, none if the logits pass.

    Otherwise the worst one, to locate the fault; for a mixture of experts all prompts, because a near tie may explain
    the failure.
    """
    if level == "layers":
        return prompts
    if judgement.passed:
        return ()
    if mixture:
        return prompts
    pairs = list(zip(results, judgement.failing, strict=True))
    failed = [result for result, tokens in pairs if tokens.any()] or list(results)
    worst = max(failed, key=lambda result: result.largest)
    return [worst.prompt]
