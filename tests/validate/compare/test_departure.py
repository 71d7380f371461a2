"""A departure is described in words that point at its cause."""

from __future__ import annotations

import numpy as np
import pytest

from msport.validate.compare.departure import describe_departure
from msport.validate.compare.metrics import relative_l2

REFERENCE = np.random.default_rng(0).standard_normal((20, 12)).astype(np.float32)


def _describe(ours: np.ndarray, **options: object) -> str:
    return describe_departure(REFERENCE, ours, relative_l2(REFERENCE, ours), 1e-4, **options)  # type: ignore[arg-type]


def test_nothing_is_said_within_the_threshold() -> None:
    assert _describe(REFERENCE * np.float32(1 + 1e-6)) == ""


def test_a_factor_is_named() -> None:
    assert _describe(REFERENCE * np.float32(1.25)) == "every token, 1.25 times the reference"


def test_a_constant_offset_is_described_as_a_bias() -> None:
    offset = np.random.default_rng(1).standard_normal(12).astype(np.float32)
    assert _describe(REFERENCE + offset) == "every token, the same offset at every token, as of a bias"


def test_a_single_feature_is_named() -> None:
    ours = REFERENCE.copy()
    ours[:, 7] *= np.random.default_rng(2).standard_normal(20).astype(np.float32)
    assert _describe(ours) == "every token, only feature 7"


def test_another_operation_s_values_are_recognised() -> None:
    other = np.random.default_rng(3).standard_normal(REFERENCE.shape).astype(np.float32)
    assert _describe(other, others={"up_proj": other}) == "every token, equals the reference's up_proj"


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (slice(8, None), "every token from position 8 on"),
        (slice(8, 10), "2 of 20 tokens from position 8 on"),
    ],
)
def test_the_departing_tokens_are_reported(tokens: slice, said: str) -> None:
    ours = REFERENCE.copy()
    ours[tokens] = np.random.default_rng(4).standard_normal(ours[tokens].shape)
    assert _describe(ours).startswith(said)


def test_positions_count_from_the_start_of_the_piece() -> None:
    ours = REFERENCE.copy()
    ours[3:] = 1.0
    assert "from position 103 on" in _describe(ours, start=100)


def test_values_that_are_not_finite_are_counted() -> None:
    ours = REFERENCE.copy()
    ours[2, 3] = np.nan
    assert _describe(ours) == "not finite at 1 of 20 tokens"


def test_a_reference_that_is_not_finite_is_blamed_itself() -> None:
    reference = REFERENCE.copy()
    reference[2:4] = np.inf
    said = describe_departure(reference, reference, relative_l2(reference, reference), 1e-4)
    assert said == "not finite in the reference itself, at 2 of 20 tokens"


def test_a_different_factor_for_each_token_is_reported_as_a_range() -> None:
    factors = np.linspace(1.1, 1.5, 20, dtype=np.float32)[:, None]
    assert _describe(REFERENCE * factors) == "every token, 1.1 to 1.5 times the reference, by token"


def test_heads_in_another_order_are_recognised() -> None:
    assert _describe(REFERENCE[:, [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7]]) == (
        "every token, the reference's features in another order, number 4 being its 8"
    )


def test_features_in_order_that_are_wrong_otherwise_are_not_taken_for_another_order() -> None:
    ours = REFERENCE[:, ::-1].copy()
    ours[:, :6] += np.random.default_rng(5).standard_normal((20, 6)).astype(np.float32)
    assert _describe(ours) == "every token"


def test_other_angles_are_distinguished_from_other_values() -> None:
    angles = np.arange(20, dtype=np.float32)[:, None] * np.array([0.5, 0.3, 0.1, 0.05, 0.01, 0.005], np.float32)
    first, second = REFERENCE[:, :6], REFERENCE[:, 6:]
    cos, sin = np.cos(angles), np.sin(angles)
    ours = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    assert _describe(ours) == "every token from position 1 on, turned, of the same length as the reference"
