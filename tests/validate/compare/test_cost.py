"""The cost of quantisation, of logits whose divergence and perplexity are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from msport.validate.compare.cost import CostMeter, total_cost


def test_equal_logits_cost_nothing_and_uniform_ones_are_as_perplex_as_the_vocabulary() -> None:
    meter = CostMeter("text")
    meter.add(np.zeros((3, 8), np.float32), np.zeros((3, 8), np.float32), (1, 2))
    cost = meter.result()
    assert (cost.tokens, cost.predicted, cost.kl_mean, cost.kl_max, cost.top1) == (3, 2, 0.0, 0.0, 1.0)
    assert cost.perplexity == pytest.approx(8)
    assert cost.perplexity_original == pytest.approx(8)


def test_the_divergence_is_that_of_the_original_from_the_quantised_distribution() -> None:
    p, q = np.array([[0.5, 0.25, 0.25]]), np.array([[0.25, 0.5, 0.25]])
    meter = CostMeter("text")
    meter.add(np.log(p).astype(np.float32), np.log(q).astype(np.float32), (0,))
    cost = meter.result()
    assert cost.kl_mean == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-6)
    assert cost.top1 == 0.0
    assert (cost.perplexity, cost.perplexity_original) == (pytest.approx(4), pytest.approx(2))


def test_pieces_and_texts_add_up_by_tokens() -> None:
    generator = np.random.default_rng(0)
    original, quantised = generator.standard_normal((2, 9, 16)).astype(np.float32)
    ids = [int(token) for token in generator.integers(0, 16, 9)]
    whole, first, second = (CostMeter(name) for name in ("whole", "first", "second"))
    whole.add(original, quantised, ids[1:])
    first.add(original[:4], quantised[:4], ids[1:5])
    second.add(original[4:], quantised[4:], ids[5:])
    total = total_cost("there", [first, second], None).total
    expected = whole.result()
    assert (total.tokens, total.predicted) == (9, 8)
    for name in ("kl_mean", "kl_max", "top1", "perplexity", "perplexity_original"):
        assert math.isclose(getattr(total, name), getattr(expected, name), rel_tol=1e-12), name


def test_one_token_predicts_nothing() -> None:
    meter = CostMeter("text")
    meter.add(np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32), ())
    assert meter.result().perplexity is None


@pytest.mark.parametrize(("bound", "within"), [(None, True), (1.0, True), (1e-3, False)])
def test_only_a_bound_judges(bound: float | None, within: bool) -> None:
    meter = CostMeter("text")
    meter.add(np.zeros((1, 4), np.float32), np.eye(1, 4, dtype=np.float32), ())
    assert total_cost("there", [meter], bound).within == within
