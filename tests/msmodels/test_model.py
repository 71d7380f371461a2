"""What a user calls on a loaded model, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.errors import UsageError
from msport.msmodels import LanguageModel, load_model
from msport.progress import Phases, Step

PROMPT = np.random.default_rng(0).integers(0, 1000, 50)

# Cached decode against one full forward: twice the worst measured, 1.4e-6.
DECODE_TOLERANCE = 2.8e-6


def error(ours: np.ndarray, truth: np.ndarray) -> float:
    """The largest relative L2 error over the last axis."""
    worst = float((np.linalg.norm(ours - truth, axis=-1) / np.linalg.norm(truth, axis=-1)).max())
    print(f"relative L2 error {worst:.2e}")
    return worst


def test_logits_have_a_row_for_every_token(model: LanguageModel) -> None:
    logits = model.logits(PROMPT[None])
    assert logits.shape == (1, 50, model.config.vocab_size)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_logits_do_not_depend_on_what_follows(model: LanguageModel) -> None:
    assert error(model.logits(PROMPT[None, :33]), model.logits(PROMPT[None])[:, :33]) <= DECODE_TOLERANCE


def test_a_large_batch_is_done_in_groups(model: LanguageModel) -> None:
    prompts = np.stack([PROMPT[:20], PROMPT[10:30], PROMPT[20:40]])  # the model runs two sequences at a time
    logits = model.logits(prompts)
    assert logits.shape[0] == 3
    for row, prompt in enumerate(prompts):
        assert error(logits[row], model.logits([prompt])[0]) <= DECODE_TOLERANCE


def test_logits_come_in_chunks_that_join_to_the_whole(model: LanguageModel) -> None:
    pieces = list(model.iter_logits(PROMPT[None]))
    assert [start for start, _ in pieces] == [0, 16, 32, 48]
    np.testing.assert_array_equal(np.concatenate([piece for _, piece in pieces], 1), model.logits(PROMPT[None]))


def test_decoding_token_by_token_equals_one_forward_past_the_window(model: LanguageModel) -> None:
    whole = model.logits(PROMPT[None])[0]
    last = model.prefill(PROMPT[None, :5])
    worst = error(last[0], whole[4])
    for position in range(5, 50):
        worst = max(worst, error(model.decode(PROMPT[position : position + 1])[0], whole[position]))
    print(f"relative L2 error {worst:.2e}")
    assert worst <= DECODE_TOLERANCE


def test_prompts_of_different_lengths_run_side_by_side(model: LanguageModel) -> None:
    short, long = PROMPT[:3], PROMPT[5:45]
    logits = [model.prefill([short, long])]
    logits += [model.decode([PROMPT[3 + step], PROMPT[45 + step]]) for step in range(4)]
    expected_short, expected_long = model.logits([PROMPT[:7]])[0, 2:], model.logits([PROMPT[5:49]])[0, 39:]
    for step in range(5):
        assert error(logits[step][0], expected_short[step]) <= DECODE_TOLERANCE
        assert error(logits[step][1], expected_long[step]) <= DECODE_TOLERANCE


def test_no_shape_of_a_prompt_compiles_a_fourth_graph(model: LanguageModel) -> None:
    for length in (1, 2, 15, 16, 17, 31, 50):
        model.logits(PROMPT[None, :length])
        model.prefill([PROMPT[:length]])
        model.decode(PROMPT[:1])
    model.prefill([PROMPT[:1], PROMPT[:40]])
    assert len(model.graphs.network.compile_cache) == 3


def test_greedy_generation_takes_the_most_likely_token_each_time(model: LanguageModel) -> None:
    tokens = list(model.generate(PROMPT[:10], max_new_tokens=6))
    ids = list(PROMPT[:10])
    for token in tokens:
        assert token == int(model.logits([ids])[0, -1].argmax())
        ids.append(token)
    assert len(tokens) == 6


def test_equal_seeds_generate_equal_tokens(model: LanguageModel) -> None:
    def draw(seed: int) -> list[int]:
        return list(model.generate(PROMPT[:10], max_new_tokens=12, temperature=2.0, top_p=0.95, seed=seed))

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


def test_generation_ends_after_a_stop_id(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    free = list(model.generate(PROMPT[:10], max_new_tokens=8))
    stop = free[3]
    monkeypatch.setattr(model, "stop_ids", frozenset([stop]))
    assert list(model.generate(PROMPT[:10], max_new_tokens=8)) == free[: free.index(stop) + 1]


def test_generation_ends_where_the_context_is_full(model: LanguageModel) -> None:
    assert len(list(model.generate(PROMPT[:50], max_new_tokens=100))) == 10


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (np.zeros(61, int), "longer than max_length"),
        ([], "at least one"),
        ([[]], "at least one"),
        ([5, -1], "token id -1 is outside the vocabulary"),
        ([5, 1024], "token id 1024 is outside the vocabulary of 1024"),
        ([1.5], "must be integers"),
        ([[1, 2], [3]], "one length"),
        (np.zeros((1, 2, 3), int), "must be integers"),
        ("abc", "must be integers"),
        (["abc"], "must be integers"),
        (5, "must be integers"),
        (None, "must be integers"),
        ({"a": 1}, "must be integers"),
        ([[1, [2, 3]]], "nested deeper, or unevenly"),
    ],
)
def test_a_bad_prompt_is_refused(model: LanguageModel, prompt: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        model.logits(prompt)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_new_tokens": "5"}, "`max_new_tokens` must be a whole number, not '5'"),
        ({"temperature": None}, "`temperature` must be a number, not None"),
        ({"top_p": "0.5"}, "`top_p` must be a number, not '0.5'"),
        ({"seed": 1.5}, "`seed` must be a whole number, not 1.5"),
    ],
)
def test_an_option_of_generating_of_a_wrong_type_is_refused(
    model: LanguageModel, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        model.generate([1], **option)
    assert str(refusal.value) == message


def test_more_prompts_than_the_batch_are_refused_where_they_cannot_be_grouped(model: LanguageModel) -> None:
    with pytest.raises(UsageError, match="batch_size=2"):
        model.prefill([[1], [2], [3]])
    with pytest.raises(UsageError, match="one prompt"):
        model.generate([[1], [2]])


def test_decoding_needs_a_prompt_and_room(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.prefill([np.arange(60), np.arange(60)])
    with pytest.raises(UsageError, match="context is full"):
        model.decode([1, 2])
    monkeypatch.setattr(model, "_prefilled", None)
    with pytest.raises(UsageError, match="call prefill first"):
        model.decode([1])


@pytest.mark.parametrize("tokens", [[1], [1, 2, 3]])
def test_decoding_takes_a_token_for_each_sequence(model: LanguageModel, tokens: list[int]) -> None:
    model.prefill([[1], [2]])
    with pytest.raises(UsageError, match=f"one token for each sequence: 2 here, not {len(tokens)}"):
        model.decode(tokens)


OVERWRITING: dict[str, Callable[[LanguageModel], object]] = {
    "logits": lambda model: model.logits([[1, 2]]),
    "generate": lambda model: list(model.generate([1, 2], max_new_tokens=2)),
    "prefill": lambda model: model.prefill([[1, 2]]),
}


@pytest.mark.parametrize("name", ["logits", "generate"])
def test_decoding_is_refused_where_another_call_has_overwritten_the_caches(model: LanguageModel, name: str) -> None:
    model.prefill([PROMPT[:5]])
    OVERWRITING[name](model)
    with pytest.raises(UsageError, match=f"prefill cannot go on: {name} has overwritten its caches"):
        model.decode([1])


@pytest.mark.parametrize("name", OVERWRITING)
def test_a_generation_ends_where_another_call_has_overwritten_the_caches(model: LanguageModel, name: str) -> None:
    tokens = model.generate(PROMPT[:5], max_new_tokens=4)
    next(tokens)
    OVERWRITING[name](model)
    with pytest.raises(UsageError, match=f"generate cannot go on: {name} has overwritten its caches"):
        next(tokens)


def test_logits_in_chunks_end_where_another_call_has_overwritten_the_caches(model: LanguageModel) -> None:
    chunks = model.iter_logits(PROMPT[None])
    next(chunks)
    model.prefill([[1]])
    with pytest.raises(UsageError, match="logits cannot go on: prefill has overwritten its caches"):
        next(chunks)


def test_generations_one_after_the_other_are_what_each_is_alone(model: LanguageModel) -> None:
    prompts = PROMPT[:5], PROMPT[5:12]
    alone = [list(model.generate(prompt, max_new_tokens=4)) for prompt in prompts]
    both = [model.generate(prompt, max_new_tokens=4) for prompt in prompts]  # nothing runs before the first step
    assert [list(tokens) for tokens in both] == alone


def test_a_prefill_that_was_broken_off_leaves_nothing_to_go_on_from(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.prefill([PROMPT[:5]])
    monkeypatch.setattr(model.graphs, "_run", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.prefill([PROMPT[:9]])
    monkeypatch.undo()
    with pytest.raises(UsageError, match="call prefill first"):
        model.decode([1])


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_threads_take_turns_on_a_model_and_on_two(folder: Path, model: LanguageModel) -> None:
    """Without a lock MindSpore ends the process, or fails to compile, in nearly every run."""
    other = load_model(folder, max_length=48, batch_size=2, prefill_chunk=16)  # two threads compile its graph at once
    expected = model.logits([PROMPT[:40]])

    def work(shared: LanguageModel) -> list[np.ndarray]:
        return [shared.logits([PROMPT[:40]]) for _ in range(8)]

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(work, [model, other, other, model]))
    for logits in (logits for run in runs for logits in run):
        assert error(logits, expected) <= DECODE_TOLERANCE


def test_warming_up_compiles_what_generating_needs_and_says_so(folder: Path) -> None:
    seen: list[Step] = []
    phases = Phases(seen.append)
    model = load_model(folder, max_length=32, prefill_chunk=16, phases=phases)
    model.warm_up(phases)
    assert seen == [Step(phase, done) for phase in ("loading", "compiling") for done in (0, 1)]
    assert list(phases.seconds) == ["loading", "compiling"]
    compiled = dict(model.graphs.compiled)
    assert list(compiled) == ["prefill", "decode"]
    assert sum(graph.seconds for graph in compiled.values()) <= phases.seconds["compiling"]
    list(model.generate(PROMPT[:20], max_new_tokens=3))
    assert model.graphs.compiled == compiled
