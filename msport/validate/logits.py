"""The verdict's measurements: our logits against recorded ones, along the two paths that a model has.

`prefill` scores a prompt in chunks; `decode` takes its last tokens one at a time over the caches, as generation does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from msport.validate.metrics import concatenate, measure
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording
from msport.validate.report import PromptResult

Floats = npt.NDArray[np.float32]


class ComputesLogits(Protocol):
    """What `compare_logits` asks of a model; ids are int ``[1, seq]``."""

    def iter_logits(self, ids: Any) -> Iterator[tuple[int, Floats]]:
        """Start and logits ``[1, n, vocab]`` of consecutive chunks."""

    def prefill(self, ids: Any) -> Floats:
        """Starts a sequence; the logits after its last token, ``[1, vocab]``."""

    def decode(self, tokens: Any) -> Floats:
        """Appends one token, ``[1]``; the logits after it, ``[1, vocab]``."""


def compare_logits(
    model: ComputesLogits,
    recording: Recording,
    prompts: Sequence[Prompt],
    advance: Callable[[int], None] = lambda tokens: None,
) -> tuple[PromptResult, ...]:
    """The errors of `model` at every token of every prompt, a prompt's prefill before its decode."""
    results = []
    for number, prompt in enumerate(prompts):
        results.append(_along(prompt, "prefill", 0, number, _prefilled(model, prompt), recording, advance))
        if prompt.decoded:
            start = len(prompt.ids) - prompt.decoded - 1
            results.append(_along(prompt, "decode", start, number, _decoded(model, prompt), recording, advance))
    return tuple(results)


def tokens_to_compare(prompts: Sequence[Prompt]) -> int:
    """How many tokens `compare_logits` measures."""
    return sum(len(prompt.ids) + (prompt.decoded + 1 if prompt.decoded else 0) for prompt in prompts)


def _along(
    prompt: Prompt,
    path: str,
    start: int,
    number: int,
    pieces: Iterator[tuple[int, Floats]],
    recording: Recording,
    advance: Callable[[int], None],
) -> PromptResult:
    errors = []
    for begin, logits in pieces:
        errors.append(measure(recording.logits(number, begin, begin + len(logits)), logits))
        advance(len(logits))
    result = PromptResult(prompt, path, start, concatenate(errors))
    if len(result.errors) != len(prompt.ids) - start:
        raise AssertionError(f"{result.title}: {len(result.errors)} tokens came back for {len(prompt.ids) - start}")
    return result


def _prefilled(model: ComputesLogits, prompt: Prompt) -> Iterator[tuple[int, Floats]]:
    for start, logits in model.iter_logits([list(prompt.ids)]):
        yield start, logits[0]


def _decoded(model: ComputesLogits, prompt: Prompt) -> Iterator[tuple[int, Floats]]:
    """Prefills all but the last `decoded` tokens, then appends those one by one."""
    last = len(prompt.ids) - prompt.decoded - 1
    yield last, model.prefill([list(prompt.ids[: last + 1])])
    for position in range(last + 1, len(prompt.ids)):
        yield position, model.decode([prompt.ids[position]])
