from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msport.errors import UsageError
from msport.sizing.units import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [
        ("5GB", 5 * 10**9),
        ("400MB", 400 * 10**6),
        ("1GiB", 2**30),
        ("1.5 gb", 1_500_000_000),
        ("0.3kB", 300),
        ("4096", 4096),
        (" 12 B ", 12),
        (77, 77),
    ],
)
def test_a_size_is_read_as_people_write_it(text: str | int, nbytes: int) -> None:
    assert parse_size(text) == nbytes


@pytest.mark.parametrize("text", ["", "GB", "5XB", "-5GB", "1e9", "5 G B", "0", "0GB", 0, -1, "0.4B", "٣GB", None, 1.5])
def test_what_is_no_size_is_refused_with_an_example(text: Any) -> None:
    with pytest.raises(UsageError, match="5GB, 400MB or 1GiB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (13_800_000_000, "13.8 GB"),
        (2 * 10**15, "2000 TB"),
    ],
)
def test_a_size_is_shown_with_three_digits(nbytes: int, text: str) -> None:
    assert format_size(nbytes) == text


@given(st.integers(1, 10**15))
def test_a_shown_size_is_read_back_within_half_a_percent(nbytes: int) -> None:
    assert abs(parse_size(format_size(nbytes)) - nbytes) <= 0.006 * nbytes
