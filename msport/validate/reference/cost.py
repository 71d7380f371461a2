"""Runs the reference on text, on the quantised weights and on the original ones, and compares the logits.

The logits of the first run lie on disk, so that one set of weights is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.checkpoint.dtypes import Array
from msport.progress import Phases
from msport.validate.compare.cost import Cost, CostMeter, total_cost
from msport.validate.operations import FINAL_NORM
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter
from msport.validate.reference.loading import Reference
from msport.validate.reference.walk import head_logits, walk

# Steps of a run beside the layers: the embedding, the final norm and the head.
_OTHERS = 3


@dataclass(frozen=True, slots=True)
class CostPlan:
    """The cost of quantisation is measured on `texts`, beside the model in `folder`, which is called `original`."""

    folder: Path
    original: str
    texts: tuple[Prompt, ...]
    max_kl: float | None


def record_texts(reference: Reference, plan: CostPlan, folder: Path, sizes: dict[str, Any], phases: Phases) -> None:
    """Writes the logits of the texts into the empty `folder`."""
    with (
        phases.phase("run reference on text", sizes["num_hidden_layers"] + _OTHERS) as advance,
        RecordingWriter(folder, plan.texts, sizes["vocab_size"]) as writer,
    ):
        for number, start, logits in _logits(reference, plan.texts, advance):
            writer.add_logits(number, start, logits)


def measure_cost(original: Reference, plan: CostPlan, folder: Path, layers: int, phases: Phases) -> Cost:
    """The cost of quantisation, of the logits in `folder` beside those of `original`."""
    meters = {text.name: CostMeter(text.name) for text in plan.texts}
    with phases.phase("run original on text", layers + _OTHERS) as advance, Recording(folder) as quantised:
        for number, start, logits in _logits(original, plan.texts, advance):
            text, end = plan.texts[number], start + len(logits)
            meters[text.name].add(logits, quantised.logits(number, start, end), text.ids[start + 1 : end + 1])
    return total_cost(plan.original, list(meters.values()), plan.max_kl)


def _logits(
    reference: Reference, texts: Sequence[Prompt], advance: Callable[[int], None]
) -> Iterator[tuple[int, int, Array]]:
    """The number of a text, its first token and float32 logits ``[n, vocab]`` from there on."""
    normed: dict[int, Array] = {}
    ids = [text.ids for text in texts]
    for passed in walk(reference.model, ids, reference.provide, every_operation=False):
        if passed.part == FINAL_NORM:
            normed = dict(enumerate(passed.tensors.values()))
        advance(1)
    yield from head_logits(reference.model, normed, reference.provide)
    advance(1)
