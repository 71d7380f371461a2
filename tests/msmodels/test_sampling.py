"""Sampling: the kept sets are those of Transformers, the frequencies those of the softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msport.errors import MsportError, UsageError
from msport.msmodels.sampling import Sampler, SamplingConfig, candidates


def _logits(seed: int, vocab: int = 500, scale: float = 3.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(vocab) * scale).astype(np.float32)


def test_temperature_zero_takes_the_highest_logit_of_each_row() -> None:
    logits = np.stack([_logits(0), _logits(1)])
    assert Sampler(SamplingConfig()).choose(logits).tolist() == logits.argmax(-1).tolist()


def test_equal_seeds_draw_equal_tokens_and_other_seeds_others() -> None:
    rows = np.stack([_logits(0, scale=0.1)] * 64)
    config = SamplingConfig(temperature=1.0)
    first, second, other = (Sampler(config, seed).choose(rows).tolist() for seed in (5, 5, 6))
    assert first == second
    assert first != other


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))
    for top_p, kept in ((0.3, {1}), (0.5, {1, 3}), (0.75, {1, 2, 3}), (0.95, {0, 1, 2, 3})):
        tokens, probabilities = candidates(logits, SamplingConfig(temperature=1.0, top_p=top_p))
        assert set(tokens.tolist()) == kept
        assert probabilities.sum() == pytest.approx(1.0)


def test_top_p_keeps_one_token_even_where_that_one_exceeds_it() -> None:
    tokens, _ = candidates(np.array([0.0, 9.0, 1.0], np.float32), SamplingConfig(temperature=1.0, top_p=1e-9))
    assert tokens.tolist() == [1]


def test_temperature_applies_before_top_p() -> None:
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    cold, _ = candidates(logits, SamplingConfig(temperature=0.25, top_p=0.9))  # 0.94, 0.06, 0.001
    warm, _ = candidates(logits, SamplingConfig(temperature=4.0, top_p=0.9))
    assert (cold.size, warm.size) == (1, 3)


def test_a_masked_token_is_never_drawn() -> None:
    logits = np.array([[0.0, -np.inf, 0.0]] * 2000, np.float32)
    drawn = Sampler(SamplingConfig(temperature=1.0), seed=3).choose(logits)
    assert set(drawn.tolist()) == {0, 2}


@pytest.mark.parametrize(("temperature", "top_p", "top_k"), [(1.0, 1.0, 0), (0.7, 0.8, 0), (1.5, 0.95, 12)])
def test_frequencies_are_those_of_the_kept_distribution(temperature: float, top_p: float, top_k: int) -> None:
    config = SamplingConfig(temperature=temperature, top_p=top_p, top_k=top_k)
    logits, draws = _logits(7, vocab=40, scale=1.0), 20_000
    tokens, probabilities = candidates(logits, config)
    drawn = Sampler(config, seed=11).choose(np.broadcast_to(logits, (draws, logits.size)))
    counts = np.array([(drawn == token).sum() for token in tokens])
    assert counts.sum() == draws, "a token outside the kept set was drawn"
    chi_square = float(((counts - probabilities * draws) ** 2 / (probabilities * draws)).sum())
    freedom = tokens.size - 1
    print(f"chi-square {chi_square:.1f} at {freedom} degrees of freedom")
    assert chi_square < freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.reference
@given(
    seed=st.integers(0, 2**32 - 1),
    vocab=st.integers(1, 400),
    temperature=st.floats(0.05, 5.0),
    top_p=st.floats(0.01, 1.0),
    top_k=st.integers(0, 450),
)
def test_the_kept_set_is_that_of_the_warpers_of_transformers(
    seed: int, vocab: int, temperature: float, top_p: float, top_k: int
) -> None:
    torch = pytest.importorskip("torch")
    warpers = pytest.importorskip("transformers.generation.logits_process")
    logits = _logits(seed, vocab).astype(np.float64)  # float64, so that no cumulative sum sits on the threshold
    scores = warpers.TemperatureLogitsWarper(temperature)(None, torch.tensor(logits[None]))
    if top_k:
        scores = warpers.TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1.0:
        scores = warpers.TopPLogitsWarper(top_p)(None, scores)
    expected = scores[0].softmax(-1).numpy()
    tokens, probabilities = candidates(logits, SamplingConfig(temperature, top_p, top_k))
    assert sorted(tokens.tolist()) == np.flatnonzero(np.isfinite(scores[0].numpy())).tolist()
    np.testing.assert_allclose(probabilities, expected[tokens], rtol=1e-9)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_k": -1}, "top_k"),
    ],
)
def test_a_value_that_names_no_distribution_is_refused_by_name(values: dict[str, float], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        SamplingConfig(**values)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="seed"):
        Sampler(SamplingConfig(), seed=-1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(bad: float, temperature: float) -> None:
    logits = _logits(0)[None]
    logits[0, 3] = bad
    with pytest.raises(MsportError, match="not finite"):
        Sampler(SamplingConfig(temperature=temperature)).choose(logits)
