"""Compares our logits with the recorded ones, in each way in which a model runs.

`prefill` scores a prompt in chunks. `decode` runs its last tokens one at a time with the KV caches, as generation does.
`batch` does both for several prompts of different lengths at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from msport.validate.compare.metrics import concatenate, measure
from msport.validate.compare.results import PromptResult
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording

if TYPE_CHECKING:
    from msport.msmodels.model import LanguageModel

Floats = npt.NDArray[np.float32]

# The number of sequences in the batch, and of tokens decoded there. This many rows still use the kernels for few
# tokens, but are more than these handle at a time.
BATCH = 8
BATCH_DECODED = 4
BATCHED = "batch"  # the path of their results
# A prompt that appears twice in the batch is shorter by this many tokens the second time.
_SHORTER = 5


def compare_logits(
    model: LanguageModel,
    recording: Recording,
    prompts: Sequence[Prompt],
    advance: Callable[[int], None] = lambda tokens: None,
) -> tuple[PromptResult, ...]:
    """The errors of `model` at every token of every prompt; for each prompt first its prefill, then its decode."""
    results = []
    for prompt in prompts:
        results.append(compare_path(recording, prompt, "prefill", 0, _prefilled(model, prompt), advance))
        if prompt.decoded:
            start = len(prompt.ids) - prompt.decoded - 1
            results.append(compare_path(recording, prompt, "decode", start, _decoded(model, prompt), advance))
    return tuple(results)


def compare_path(
    recording: Recording,
    prompt: Prompt,
    path: str,
    start: int,
    pieces: Iterable[tuple[int, Floats]],
    advance: Callable[[int], None] = lambda tokens: None,
) -> PromptResult:
    """The errors of `prompt` from token `start` on.

    `pieces` are consecutive logits ``[n, vocab]``, each with the position of its first token.
    """
    errors = []
    for begin, logits in pieces:
        errors.append(measure(recording.logits(prompt.number, begin, begin + len(logits)), logits))
        advance(len(logits))
    result = PromptResult(prompt, path, start, concatenate(errors))
    if len(result.errors) != len(prompt.ids) - start:
        raise AssertionError(f"{result.title}: {len(result.errors)} tokens came back for {len(prompt.ids) - start}")
    return result


def compare_batch(
    model: LanguageModel,
    recording: Recording,
    prompts: Sequence[Prompt],
    rows: Sequence[Prompt],
    advance: Callable[[int], None] = lambda tokens: None,
) -> tuple[PromptResult, ...]:
    """The errors of `rows`, the beginnings of `prompts` in `batched_rows`, run in one batch, the shorter ones padded.

    Measures the last token of the prefill and each token decoded after it. `prompts` are in the order of their numbers.
    """
    steps = [model.prefill([list(row.ids[:-BATCH_DECODED]) for row in rows])]
    advance(len(rows))
    for step in range(BATCH_DECODED):
        steps.append(model.decode([row.ids[step - BATCH_DECODED] for row in rows]))
        advance(len(rows))
    results = []
    for row, chosen in enumerate(rows):
        start = len(chosen.ids) - BATCH_DECODED - 1
        ours = np.stack([logits[row] for logits in steps])
        errors = measure(recording.logits(chosen.number, start, len(chosen.ids)), ours)
        results.append(PromptResult(prompts[chosen.number], BATCHED, start, errors))
    return tuple(results)


def batched_rows(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The sequences for `compare_batch`: `BATCH` beginnings of prompts with different lengths, the short ones first."""
    rows: list[Prompt] = []
    lengths: set[int] = set()
    shortest = sorted(prompts, key=lambda prompt: len(prompt.ids))
    for cut in range(0, _SHORTER * BATCH, _SHORTER):
        for prompt in shortest:
            length = len(prompt.ids) - cut
            if length > BATCH_DECODED and length not in lengths and len(rows) < BATCH:
                rows.append(replace(prompt, ids=prompt.ids[:length]))
                lengths.add(length)
    return rows if len(rows) > 1 else []


def tokens_to_compare(prompts: Sequence[Prompt], rows: Sequence[Prompt]) -> int:
    """Number of tokens that `compare_logits` of `prompts` and `compare_batch` of `rows` measure."""
    return len(rows) * (BATCH_DECODED + 1) + sum(
        len(prompt.ids) + (prompt.decoded + 1 if prompt.decoded else 0) for prompt in prompts
    )


def _prefilled(model: LanguageModel, prompt: Prompt) -> Iterator[tuple[int, Floats]]:
    for start, logits in model.iter_logits([list(prompt.ids)]):
        yield start, logits[0]


def _decoded(model: LanguageModel, prompt: Prompt) -> Iterator[tuple[int, Floats]]:
    """Prefills all but the last `decoded` tokens, then appends those one by one."""
    last = len(prompt.ids) - prompt.decoded - 1
    yield last, model.prefill([list(prompt.ids[: last + 1])])
    for position in range(last + 1, len(prompt.ids)):
        yield position, model.decode([prompt.ids[position]])
