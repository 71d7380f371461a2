"""Percentiles and spread are those computed by hand."""

from __future__ import annotations

import pytest

from msport.bench.measure.statistics import median, spread, summarise


def test_percentiles_lie_between_the_two_nearest_samples() -> None:
    summary = summarise([[float(value) for value in range(1, 102)]])  # 1 to 101: the p-th percentile is p + 1
    assert (summary.p50, summary.p95, summary.p99) == (51.0, 96.0, 100.0)
    assert (summary.minimum, summary.maximum, summary.mean, summary.count) == (1.0, 101.0, 51.0, 101)


def test_percentiles_of_few_samples_are_interpolated() -> None:
    summary = summarise([[10.0, 20.0]])
    assert summary.p50 == 15.0
    assert summary.p95 == pytest.approx(19.5)
    assert summary.p99 == pytest.approx(19.9)


def test_percentiles_are_over_all_repeats_and_the_spread_is_between_their_medians() -> None:
    summary = summarise([[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [3.0, 3.0, 0.0]])  # medians 1, 2, 3
    assert summary.count == 9
    assert summary.p50 == 2.0
    assert summary.spread == pytest.approx((3.0 - 1.0) / 2.0)
    assert (summary.lowest, summary.highest) == (1.0, 3.0)


def test_one_repeat_has_no_spread() -> None:
    summary = summarise([[1.0, 2.0, 3.0]])
    assert summary.spread is None


def test_equal_repeats_have_a_spread_of_zero() -> None:
    assert spread([4.0, 4.0, 4.0]) == 0.0


def test_one_sample_is_every_percentile() -> None:
    summary = summarise([[7.0]])
    assert {summary.minimum, summary.p50, summary.p95, summary.p99, summary.maximum, summary.mean} == {7.0}


def test_without_samples_there_is_no_summary() -> None:
    for nothing in ([], [[], []]):
        with pytest.raises(ValueError, match="no samples"):
            summarise(nothing)


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two() -> None:
    assert median([1.0, 4.0, 2.0, 100.0]) == 3.0
