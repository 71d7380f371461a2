"""Runs and judges our side: the model loaded whole, or one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.progress import Phases
from msport.validate.compare.layers import LayerComparison, LayerError, Numbered
from msport.validate.compare.logits import batched_rows, compare_batch, compare_logits, measure_rows, tokens_to_compare
from msport.validate.compare.metrics import Bools
from msport.validate.compare.results import PromptResult
from msport.validate.operations import ROUTER
from msport.validate.port.choice import Ours
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording
from msport.validate.reference.noise import Noise
from msport.validate.verdict.rules import LARGEST_FACTOR, Judgement, judge

if TYPE_CHECKING:
    from msport.validate.port.blocks import InMemory, LayerRunner

PREFILL_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Request:
    """What to judge our side by: the prompts, the noise (None: only the tolerance) and the tolerance.

    An isolated operation departs if its error exceeds `threshold`.
    """

    prompts: tuple[Prompt, ...]
    noise: Noise | None
    tolerance: float
    threshold: float
    reference_dtype: str
    level: str

    def judge(self, results: Sequence[PromptResult], undecided: Mapping[int, Bools] | None = None) -> Judgement:
        return judge(results, self.prompts, self.noise, self.tolerance, undecided)

    @property
    def router_error(self) -> tuple[float, ...]:
        """For each layer, the error of the router's logits that rounding explains."""
        return () if self.noise is None else tuple(LARGEST_FACTOR * error for error in self.noise.router)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The measurements of our side and the judgement of its logits."""

    results: tuple[PromptResult, ...]
    judgement: Judgement
    layers: tuple[LayerError, ...]
    device: str
    operators: str


def judge_loaded(ours: Ours, recording: Recording, request: Request, phases: Phases) -> Outcome:
    """Runs the model as a user does; compares its layers if requested or if it fails."""
    from msport.msmodels.loading import load_model
    from msport.validate.port.blocks import InMemory

    prompts = request.prompts
    with phases.phase("load model"):
        longest = max(len(prompt.ids) for prompt in prompts)
        model = load_model(ours.folder, ours.load_dtype, max_length=longest, prefill_chunk=PREFILL_CHUNK)
    with phases.phase("run model", tokens_to_compare(prompts)) as advance:
        results = compare_logits(model, recording, prompts, advance)
        if rows := batched_rows(prompts):
            from msport.validate.port.sharing import with_batch

            batch = with_batch(model, len(rows), max(len(row.ids) for row in rows))
            results += compare_batch(batch, recording, prompts, advance)
    judgement = request.judge(results)
    chosen = _to_locate(results, judgement, request, recording.has_operation(ROUTER))
    layers: tuple[LayerError, ...] = ()
    if chosen:
        with phases.phase("compare layers", model.config.num_hidden_layers + 2) as advance:
            blocks = InMemory(model.graphs.network, model.graphs.cache, model.config.hidden_size)
            comparison = LayerComparison(blocks, recording, chosen, request.threshold, request.router_error)
            layers = _compare_layers(comparison, blocks, model.config.num_hidden_layers, results, chosen, advance)
        judgement = _judge_excusing(request, results, comparison, layers)
    return Outcome(results, judgement, layers, model.device, model.operators)


def judge_streamed(ours: Ours, recording: Recording, request: Request, phases: Phases) -> Outcome:
    """Runs the model one layer at a time: prefill and decode of each prompt, and the isolated blocks."""
    from msport.validate.port.streamed import Streamed

    prompts = request.prompts
    longest = max(len(prompt.ids) for prompt in prompts)
    layers = ours.config.num_hidden_layers
    with phases.phase("run model by layers", layers + 2) as advance:
        blocks = Streamed(ours, longest, PREFILL_CHUNK)
        numbered = list(enumerate(prompts))
        comparison = LayerComparison(blocks, recording, numbered, request.threshold, request.router_error)
        decoding = _Decoding(comparison, numbered)
        errors = []
        for error in comparison.run(layers, decoding.after_layer):
            errors.append(error)
            advance(1)
        with blocks.head() as head:
            results = []
            for number, prompt in numbered:
                rows = measure_rows(recording, number, 0, head(comparison.trajectory[number]))
                results.append(PromptResult(prompt, "prefill", 0, rows))
                if number in decoding.tails:
                    start = len(prompt.ids) - prompt.decoded
                    rows = measure_rows(recording, number, start, head(decoding.tails[number]))
                    results.append(PromptResult(prompt, "decode", start, rows))
            errors.append(comparison.head(layers, head, _logit_errors(results, numbered)))
        blocks.close()
        advance(1)
    judgement = _judge_excusing(request, results, comparison, errors)
    return Outcome(tuple(results), judgement, tuple(errors), blocks.device, blocks.operators)


def _judge_excusing(
    request: Request, results: Sequence[PromptResult], comparison: LayerComparison, layers: Sequence[LayerError]
) -> Judgement:
    """Judges `results`. Near ties of experts excuse the tokens that they explain, unless an isolated operation
    departs.
    """
    departs = any(error.first_operation for error in layers)
    return request.judge(results, None if departs else comparison.undecided)


class _Decoding:
    """Runs the last tokens of prompts one at a time through every layer, as in generation, with a cache of the
    others.
    """

    def __init__(self, comparison: LayerComparison, prompts: Numbered) -> None:
        self._comparison = comparison
        self._prompts = [(number, prompt) for number, prompt in prompts if prompt.decoded]
        self.tails: dict[int, Array] = {}

    def after_layer(self, runner: LayerRunner) -> None:
        """Advances the last tokens of each prompt through the layer that has just run."""
        for number, prompt in self._prompts:
            entering = self._comparison.entering[number]
            start = len(prompt.ids) - prompt.decoded
            runner.run(entering[:start])
            self.tails[number] = runner.decode(self.tails.get(number, entering[start:]), start)


def _compare_layers(
    comparison: LayerComparison,
    blocks: InMemory,
    layers: int,
    results: Sequence[PromptResult],
    chosen: Numbered,
    advance: Callable[[int], None],
) -> tuple[LayerError, ...]:
    errors = []
    for error in comparison.run(layers):
        errors.append(error)
        advance(1)
    with blocks.head() as head:
        errors.append(comparison.head(layers, head, _logit_errors(results, chosen)))
    return tuple(errors)


def _logit_errors(results: Sequence[PromptResult], chosen: Numbered) -> list[Array]:
    """The relative L2 errors of the prefill of each of the `chosen` prompts."""
    by_prompt = {result.prompt: result.errors.relative_l2 for result in results if result.path == "prefill"}
    return [np.asarray(by_prompt[prompt]) for _, prompt in chosen]


def _to_locate(results: Sequence[PromptResult], judgement: Judgement, request: Request, mixture: bool) -> Numbered:
    """The prompts whose layers are compared: all for level ``layers``, none if the logits pass.

    Otherwise the worst one, to locate the fault; for a mixture of experts all prompts, because a near tie may explain
    the failure.
    """
    numbered = list(enumerate(request.prompts))
    if request.level == "layers":
        return numbered
    if judgement.passed:
        return []
    if mixture:
        return numbered
    pairs = list(zip(results, judgement.failing, strict=True))
    failed = [result for result, tokens in pairs if tokens.any()] or list(results)
    worst = max(failed, key=lambda result: result.errors.relative_l2.max())
    return [numbered[request.prompts.index(worst.prompt)]]
