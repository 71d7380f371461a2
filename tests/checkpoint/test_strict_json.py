"""JSON without Python's leniency."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msport.checkpoint import strict_json

documents = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**64 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
)


@given(documents)
def test_what_a_strict_writer_writes_is_read(document: object) -> None:
    assert strict_json.parse(json.dumps(document).encode()) == document
    assert strict_json.parse(json.dumps(document, ensure_ascii=False).encode()) == document


@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused_with_a_value_error(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        strict_json.parse(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"a":1,"a":1}', "duplicate key 'a'"),
        (b'{"b":{"a":1,"a":1}}', "duplicate key 'a'"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"1e999", "'1e999' is not a number in range"),
        (b'{"a":-1' + b"0" * 400 + b".0}", "is not a number in range"),
        (b"-0", "not an integer in range"),
        (b"1" * 21, "not an integer in range"),
        (b"1" * 100_000, "not an integer in range"),
        (b'{"\\ud800":1}', "unpaired surrogate"),
        (b'{"a":"\\udc00"}', "unpaired surrogate"),
        (b'["\\udc00"]', "unpaired surrogate"),
        (b"{} {}", "not JSON"),
        (b'"\n"', "not JSON"),
    ],
)
def test_what_python_would_let_pass_is_refused(text: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        strict_json.parse(text)


@pytest.mark.parametrize("limit", [1000, 10_000])
@pytest.mark.parametrize("text", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_deep_nesting_is_refused_whatever_the_recursion_limit(text: bytes, limit: int) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)  # importing MindSpore sets 10,000
    try:
        with pytest.raises(ValueError, match="nested too deeply"):
            strict_json.parse(text)
    finally:
        sys.setrecursionlimit(before)
