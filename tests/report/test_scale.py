"""Ticks are round, no two say the same, and every value stands between the ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msport.report.formatting import exact_percent, number
from msport.report.scale import decades, linear, measured, places


@given(st.floats(1e-9, 1e9), st.floats(1e-3, 1.0))
def test_ticks_of_a_linear_scale_differ_and_hold_every_value(high: float, share: float) -> None:
    scale = linear(0.0, high)
    labels = [label for _, label in scale.ticks]
    assert len(set(labels)) == len(labels) <= 7
    assert not any("e" in label for label in labels), "no exponents"
    assert scale.low == 0.0
    assert scale.high >= high * (1 - 1e-9)
    assert scale.place(share * high) == pytest.approx(share * high / scale.high)


@pytest.mark.parametrize(
    ("high", "show", "labels"),
    [
        (0.18, exact_percent, ["0%", "5%", "10%", "15%", "20%"]),
        (11_623.0, number, ["0", "5,000", "10,000", "15,000"]),
        (0.0, exact_percent, ["0%", "100%"]),
    ],
)
def test_ticks_are_round(high: float, show, labels: list[str]) -> None:
    assert [label for _, label in linear(0.0, high, show).ticks] == labels


def test_a_scale_around_zero_has_a_tick_there() -> None:
    assert [value for value, _ in linear(-0.33, 0.33).ticks] == pytest.approx([-0.4, -0.2, 0.0, 0.2, 0.4])


def test_decades_hold_every_value_that_has_a_logarithm() -> None:
    scale = decades([0.0, 3e-7, 2e-3, float("inf")])
    assert (scale.low, scale.high) == pytest.approx((1e-7, 1e-2))
    assert [label for _, label in scale.ticks] == ["10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²"]
    assert [scale.place(value) for value in (0.0, 1e-7, 1e-2, float("inf"))] == [0.0, 0.0, 1.0, 1.0]
    assert len(decades([1e-30, 1.0]).ticks) <= 9
    assert decades([]).high > decades([]).low


def test_places_are_labelled_by_number_or_name_and_not_all_where_they_are_many() -> None:
    assert [label for _, label in places(2, ["embed", "0", "head"]).ticks] == ["embed", "0", "head"]
    assert [label for _, label in places(4400).ticks] == ["0", "500", *(f"{n:,}" for n in range(1000, 4400, 500))]
    assert places(0).place(0.0) == 0.0


def test_a_scale_of_one_measured_value_shows_it_in_the_middle() -> None:
    scale = measured([(100.0, "100")])
    assert scale.place(100.0) == pytest.approx(0.5)
    assert scale.ticks == ((100.0, "100"),)
