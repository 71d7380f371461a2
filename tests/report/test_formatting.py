"""Values are short, and nothing is said of them that is not so."""

from __future__ import annotations

from msport.report.formatting import counted, number, percent, power_of_ten, scientific, shortened, times, utc


def test_a_text_is_shortened_to_one_line_of_columns() -> None:
    assert shortened("two\nlines\tand \x1b[31mmore", 40) == "two lines and [31mmore"
    assert shortened("模型移植是否成功", 16) == "模型移植是否成功"
    assert shortened("模型移植是否成功", 9) == "模型移植…"
    assert shortened("a word too many", 7) == "a word…"


def test_less_than_a_percent_is_not_nothing() -> None:
    assert [percent(share) for share in (0.0, 0.0041, 0.0094, 0.0096, 0.5)] == ["0%", "0.4%", "0.9%", "1%", "50%"]


def test_one_is_counted_without_an_s() -> None:
    assert [counted(1, "run"), counted(2, "run"), counted(2, "process", "processes")] == [
        "1 run",
        "2 runs",
        "2 processes",
    ]


def test_a_date_is_written_for_people() -> None:
    assert utc("2026-11-21T08:00:00+00:00") == "2026-11-21 08:00:00 UTC"


def test_a_number_has_no_exponent_and_no_idle_digits() -> None:
    values = [0.0, 20.0, 23.456, 10_000.0, 123_456.7, 0.00004321, 1e-3, float("inf"), -12.5]
    shown = ["0", "20", "23.46", "10,000", "123,457", "0.00004321", "0.001", "not finite", "-12.5"]
    assert [number(value) for value in values] == shown
    assert number(0.21934, 3) == "0.219"


def test_powers_of_ten_are_written_as_people_do() -> None:
    assert [power_of_ten(exponent) for exponent in (4, -12)] == ["10⁴", "10⁻¹²"]


def test_an_error_has_an_exponent_and_a_ratio_has_none() -> None:
    assert [scientific(1.234e-5), scientific(0.5, 1), scientific(float("inf"))] == ["1.23e-05", "5.0e-01", "not finite"]
    assert [times(2.345), times(99.94), times(12_345.0), times(float("nan"))] == ["2.3", "99.9", "12,000", "not finite"]
