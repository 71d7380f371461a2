"""Prefill and decode are measured apart, token by token, against a recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from msport.validate.compare.logits import (
    BATCH,
    BATCH_DECODED,
    batched_rows,
    compare_batch,
    compare_logits,
)
from msport.validate.compare.results import PromptResult
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter

PROMPTS = (Prompt("long", tuple(range(10)), decoded=4), Prompt("short", (7, 7), number=1))
VOCAB = 1024


class Model:
    """Recites logits by position, as the recording has them; a subclass makes the mistakes."""

    chunk = 3

    def __init__(self) -> None:
        self._position = 0

    def iter_logits(self, ids: list[list[int]]) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(ids[0]), self.chunk):
            yield start, _logits(len(ids[0]))[None, start : start + self.chunk]

    def prefill(self, ids: list[list[int]]) -> np.ndarray:
        self._position = len(ids[0]) - 1
        return _logits(10)[None, self._position]

    def decode(self, tokens: list[int]) -> np.ndarray:
        self._position += 1
        assert tokens == [PROMPTS[0].ids[self._position]]
        return _logits(10)[None, self._position]


def _logits(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal((length, VOCAB)).astype(np.float32)


def _failed(result: PromptResult, tolerance: float = 1e-2) -> int:
    """How many tokens are beyond `tolerance`."""
    return int((~(result.errors.relative_l2 <= tolerance)).sum())


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    with _recorded(tmp_path, PROMPTS) as opened:
        yield opened


def _recorded(folder: Path, prompts: Sequence[Prompt]) -> Recording:
    with RecordingWriter(folder, prompts, VOCAB) as writer:
        for number, prompt in enumerate(prompts):
            writer.add_logits(number, 0, _logits(len(prompt.ids)))
    return Recording(folder)


def test_a_model_that_agrees_has_no_error_on_either_path(recording: Recording) -> None:
    counted: list[int] = []
    results = compare_logits(Model(), recording, PROMPTS, counted.append)
    assert [(r.title, r.start, len(r.errors)) for r in results] == [
        ("long", 0, 10),
        ("long, decode", 5, 5),
        ("short", 0, 2),
    ]
    assert all(_failed(result, 0.0) == 0 for result in results)
    assert sum(counted) == 17


def test_a_fault_of_one_token_in_one_chunk_is_found_at_its_position(recording: Recording) -> None:
    class Wrong(Model):
        def iter_logits(self, ids: list[list[int]]) -> Iterator[tuple[int, np.ndarray]]:
            for start, logits in super().iter_logits(ids):
                if start <= 7 < start + self.chunk:
                    logits = logits.copy()
                    logits[0, 7 - start] *= 1.5
                yield start, logits

    long, decoded, short = compare_logits(Wrong(), recording, PROMPTS)
    assert (_failed(long), long.start + long.worst) == (1, 7)
    assert long.errors.relative_l2[7] == pytest.approx(0.5)
    assert _failed(decoded) == _failed(short) == 0


def test_a_fault_that_only_decoding_has_is_found_on_that_path_alone(recording: Recording) -> None:
    class Forgetful(Model):
        def decode(self, tokens: list[int]) -> np.ndarray:
            return super().decode(tokens) * np.float32(1.02 if self._position == 7 else 1.0)

    long, decoded, _ = compare_logits(Forgetful(), recording, PROMPTS)
    assert _failed(long) == 0
    assert (_failed(decoded), decoded.start + decoded.worst) == (1, 7)


def test_tokens_that_never_came_back_are_not_taken_for_agreement(recording: Recording) -> None:
    class Short(Model):
        def iter_logits(self, ids: list[list[int]]) -> Iterator[tuple[int, np.ndarray]]:
            yield from list(super().iter_logits(ids))[:-1]

    with pytest.raises(AssertionError, match="9 tokens came back for 10"):
        compare_logits(Short(), recording, PROMPTS)


class Batch:
    """Recites logits of several prompts at a time; `wrong` is the row that it gets wrong when it decodes."""

    def __init__(self, prompts: Sequence[Prompt], wrong: int | None = None) -> None:
        self._prompts = prompts
        self._rows = batched_rows(prompts)
        self._wrong = wrong
        self._position: list[int] = []

    def prefill(self, ids: list[list[int]]) -> np.ndarray:
        assert [tuple(row) for row in ids] == [row.ids[:-BATCH_DECODED] for row in self._rows]
        self._position = [len(row) - 1 for row in ids]
        return self._recite()

    def decode(self, tokens: list[int]) -> np.ndarray:
        self._position = [position + 1 for position in self._position]
        assert tokens == [row.ids[p] for row, p in zip(self._rows, self._position, strict=True)]
        logits = self._recite()
        if self._wrong is not None:
            logits[self._wrong] *= 2
        return logits

    def _recite(self) -> np.ndarray:
        lengths = [len(self._prompts[row.number].ids) for row in self._rows]
        return np.stack([_logits(length)[p] for length, p in zip(lengths, self._position, strict=True)])


def test_a_fault_of_one_row_of_a_padded_batch_is_found_in_its_prompt(tmp_path: Path) -> None:
    prompts = [Prompt(str(length), tuple(range(length)), number=n) for n, length in enumerate((9, 30, 6))]
    rows = batched_rows(prompts)
    with _recorded(tmp_path, prompts) as recording:
        counted: list[int] = []
        results = compare_batch(Batch(prompts), recording, prompts, rows, counted.append)
        titles = [(r.title, r.start, len(r.errors)) for r in results]
        assert titles[:3] == [("6, batch", 1, 5), ("9, batch", 4, 5), ("30, batch", 25, 5)]
        assert len(results) == len(rows) == BATCH
        assert not any(_failed(result, 0.0) for result in results)
        assert sum(counted) == 5 * len(results)
        failed = [_failed(result) for result in compare_batch(Batch(prompts, wrong=1), recording, prompts, rows)]
        assert failed[:3] == [0, BATCH_DECODED, 0]


def test_a_batch_holds_beginnings_of_different_lengths_of_few_prompts_too() -> None:
    rows = batched_rows([Prompt("a", tuple(range(200)))])
    assert [len(row.ids) for row in rows] == [200, 195, 190, 185, 180, 175, 170, 165]
    assert rows[1] == Prompt("a", tuple(range(195)))
    assert batched_rows([Prompt("a", tuple(range(9))), Prompt("c", (1,), number=1)]) == []
