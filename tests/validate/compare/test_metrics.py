"""The measured errors are those computed by hand, and nothing that is not finite ever passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from msport.validate.compare import metrics
from msport.validate.compare.metrics import TokenErrors, concatenate, measure, relative_l2

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 8)), elements=st.floats(-50, 50, width=32))


def _one(reference: list[float], ours: list[float]) -> TokenErrors:
    return measure(np.array([reference], np.float32), np.array([ours], np.float32))


def test_relative_l2_is_the_norm_of_the_difference_over_the_norm_of_the_reference() -> None:
    assert _one([3.0, 4.0], [3.0, 4.5]).relative_l2[0] == pytest.approx(0.1)


def test_max_abs_is_the_largest_single_difference() -> None:
    assert _one([1.0, 2.0, 3.0], [1.5, 0.0, 3.0]).max_abs[0] == 2.0


def test_kl_is_that_of_the_reference_against_ours() -> None:
    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    by_hand = 0.5 * math.log(2.0) + 0.25 * math.log(0.5)
    assert _one([math.log(v) for v in p], [math.log(v) for v in q]).kl[0] == pytest.approx(by_hand, rel=1e-6)


def test_kl_ignores_a_shift_of_all_logits_and_relative_l2_does_not() -> None:
    errors = _one([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])
    assert errors.kl[0] == pytest.approx(0.0, abs=1e-12)
    assert errors.relative_l2[0] == pytest.approx(math.sqrt(3 / 14))


def test_the_regret_is_the_lead_that_ours_gives_up_in_the_reference_s_logits() -> None:
    errors = _one([5.0, 3.0, 1.0], [1.0, 3.0, 2.5])
    assert (errors.top1[0], errors.regret[0], errors.margin[0], errors.margin_error[0]) == (False, 2.0, 2.0, 4.0)
    agreeing = _one([5.0, 3.0, 1.0], [5.5, 3.0, 1.0])
    assert (agreeing.top1[0], agreeing.regret[0], agreeing.margin_error[0]) == (True, 0.0, 0.5)


def test_a_tie_for_the_first_place_agrees() -> None:
    assert _one([2.0, 1.0], [2.0, 2.0]).top1[0]


def test_the_overlap_is_the_share_of_the_top_five_in_both() -> None:
    reference = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]
    ours = [9.0, 8.0, 7.0, 1.0, 2.0, 6.0, 5.0]
    assert _one(reference, ours).overlap[0] == pytest.approx(3 / 5)


def test_a_vocabulary_of_one_token_is_measured() -> None:
    errors = _one([2.0], [2.0])
    assert (errors.overlap[0], errors.top1[0], errors.relative_l2[0], errors.regret[0]) == (1.0, True, 0.0, 0.0)


def test_a_reference_of_zeros_allows_zeros_only() -> None:
    assert relative_l2(np.zeros((1, 3)), np.zeros((1, 3)))[0] == 0.0
    assert relative_l2(np.zeros((1, 3)), np.ones((1, 3)))[0] == np.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["reference", "ours", "both"])
def test_a_logit_that_is_not_finite_has_an_infinite_error(bad: float, side: str) -> None:
    good, broken = [1.0, 2.0, 3.0], [1.0, bad, 3.0]
    errors = _one(broken if side != "ours" else good, broken if side != "reference" else good)
    assert errors.relative_l2[0] == errors.regret[0] == errors.kl[0] == errors.max_abs[0] == np.inf
    assert not errors.finite[0]


def test_one_bad_row_leaves_the_others_as_they_are() -> None:
    reference = np.array([[1.0, 2.0], [1.0, 2.0]], np.float32)
    errors = measure(reference, np.array([[np.nan, 2.0], [1.0, 2.0]], np.float32))
    assert errors.finite.tolist() == [False, True]
    assert errors.relative_l2.tolist() == [np.inf, 0.0]


def test_hidden_states_that_are_not_finite_have_an_infinite_error() -> None:
    states = np.array([[1.0, np.nan], [np.inf, 1.0], [1.0, 1.0]], np.float32)
    assert relative_l2(np.ones((3, 2), np.float32), states).tolist() == [np.inf, np.inf, 0.0]
    assert relative_l2(states, np.ones((3, 2), np.float32)).tolist() == [np.inf, np.inf, 0.0]


def test_large_float32_logits_do_not_overflow() -> None:
    errors = _one([3e38, -3e38], [-3e38, 3e38])
    assert errors.relative_l2[0] == pytest.approx(2.0)
    assert errors.finite[0]


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        measure(np.zeros((2, 3)), np.zeros((1, 3)))


@given(LOGITS, st.integers(0, 2**32 - 1))
def test_measuring_in_blocks_is_measuring_at_once(reference: np.ndarray, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(reference.shape)
    ours = (reference + noise).astype(np.float32)
    whole = measure(reference, ours)
    rows = concatenate(measure(reference[i : i + 1], ours[i : i + 1]) for i in range(len(reference)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_ELEMENTS", 1)
        blocks = measure(reference, ours)
    for name in TokenErrors.__slots__:
        np.testing.assert_array_equal(getattr(whole, name), getattr(rows, name))
        np.testing.assert_array_equal(getattr(whole, name), getattr(blocks, name))


@given(LOGITS, st.integers(0, 2**32 - 1), st.floats(0, 2), st.floats(0, 4), st.floats(0, 4))
def test_a_larger_error_never_passes_the_l2_rule_where_a_smaller_one_fails(
    reference: np.ndarray, seed: int, tolerance: float, one: float, other: float
) -> None:
    direction = np.random.default_rng(seed).standard_normal(reference.shape)
    theirs = reference.astype(np.float64)
    small, large = (relative_l2(theirs, theirs + scale * direction) for scale in sorted((one, other)))
    assert ((large <= tolerance) <= (small <= tolerance * (1 + 1e-9) + 1e-12)).all()


@given(LOGITS)
def test_equal_logits_have_no_error(reference: np.ndarray) -> None:
    errors = measure(reference, reference.copy())
    assert errors.relative_l2.max() == errors.regret.max() == errors.margin_error.max() == 0.0
    assert errors.kl.max() == 0.0
    assert errors.top1.all()
