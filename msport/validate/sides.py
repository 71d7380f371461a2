"""Our side of a verdict: the model loaded whole, or one layer at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.phases import Phases
from msport.validate.findings import PromptResult
from msport.validate.layers import LayerComparison, LayerError, Numbered
from msport.validate.logits import (
    BATCH,
    batched_prompts,
    compare_batch,
    compare_logits,
    measure_rows,
    tokens_to_compare,
)
from msport.validate.ours import Ours
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording
from msport.validate.tolerance import rounding

if TYPE_CHECKING:
    from msport.msmodels.model import LanguageModel
    from msport.validate.blocks import LayerRunner

PREFILL_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured on our side, and on what."""

    results: tuple[PromptResult, ...]
    layers: tuple[LayerError, ...]
    device: str
    operators: str


def judge_loaded(
    ours: Ours,
    recording: Recording,
    prompts: Sequence[Prompt],
    *,
    level: str,
    tolerance: float,
    reference_dtype: str,
    phases: Phases,
) -> Outcome:
    """The model as a user runs it; its layers are compared if asked for, or for the worst prompt if it fails."""
    from msport.msmodels.loading import load_model

    with phases.phase("load model"):
        longest = max(len(prompt.ids) for prompt in prompts)
        model = load_model(ours.folder, ours.load_dtype, max_length=longest, prefill_chunk=PREFILL_CHUNK)
    with phases.phase("run model", tokens_to_compare(prompts)) as advance:
        results = compare_logits(model, recording, prompts, advance)
        if batched_prompts(prompts):
            from msport.validate.sharing import with_batch

            results += compare_batch(with_batch(model, BATCH), recording, prompts, advance)
    chosen = _to_locate(results, prompts, level, tolerance)
    layers: tuple[LayerError, ...] = ()
    if chosen:
        threshold = rounding(model.dtype, reference_dtype)
        with phases.phase("compare layers", model.config.num_hidden_layers + 2) as advance:
            layers = _compare_layers(model, recording, chosen, results, threshold, advance)
    return Outcome(results, layers, model.device, model.operators)


def judge_streamed(
    ours: Ours, recording: Recording, prompts: Sequence[Prompt], *, reference_dtype: str, phases: Phases
) -> Outcome:
    """The model's layers one at a time, each prompt's prefill and decode beside what isolates a fault."""
    from msport.validate.stream import Streamed

    longest = max(len(prompt.ids) for prompt in prompts)
    layers = ours.config.num_hidden_layers
    with phases.phase("run model by layers", layers + 2) as advance:
        blocks = Streamed(ours, longest, PREFILL_CHUNK)
        numbered = list(enumerate(prompts))
        comparison = LayerComparison(blocks, recording, numbered, rounding(ours.dtype, reference_dtype))
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
    return Outcome(tuple(results), tuple(errors), blocks.device, blocks.operators)


class _Decoding:
    """The last tokens of prompts, run one at a time in every layer as generation does, over a cache of the others."""

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
    model: LanguageModel,
    recording: Recording,
    chosen: Numbered,
    results: Sequence[PromptResult],
    threshold: float,
    advance: Callable[[int], None],
) -> tuple[LayerError, ...]:
    from msport.validate.blocks import InMemory

    blocks = InMemory(model.graphs.network, model.graphs.cache, model.config.hidden_size)
    comparison = LayerComparison(blocks, recording, chosen, threshold)
    layers = model.config.num_hidden_layers
    errors = []
    for error in comparison.run(layers):
        errors.append(error)
        advance(1)
    with blocks.head() as head:
        errors.append(comparison.head(layers, head, _logit_errors(results, chosen)))
    return tuple(errors)


def _logit_errors(results: Sequence[PromptResult], chosen: Numbered) -> list[Array]:
    """Of each of the `chosen` prompts, the relative L2 errors of its prefill."""
    by_prompt = {result.prompt: result.errors.relative_l2 for result in results if result.path == "prefill"}
    return [np.asarray(by_prompt[prompt]) for _, prompt in chosen]


def _to_locate(results: Sequence[PromptResult], prompts: Sequence[Prompt], level: str, tolerance: float) -> Numbered:
    """All prompts if layers are to be judged; the worst one, to locate the fault, if the logits failed; else none."""
    if level == "layers":
        return list(enumerate(prompts))
    failed = [result for result in results if result.failed(tolerance)]
    worst = max(failed, key=lambda result: result.errors.relative_l2.max(), default=None)
    return [] if worst is None else [(list(prompts).index(worst.prompt), worst.prompt)]
