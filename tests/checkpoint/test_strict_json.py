"""JSON without Python's leniency."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

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
def test_deep_nesting_is_refused_for_any_recursion_limit(text: bytes, limit: int) -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)  # importing MindSpore sets 10,000
    try:
        with pytest.raises(ValueError, match="nested too deeply"):
            strict_json.parse(text)
    finally:
        sys.setrecursionlimit(before)


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_depth_is_bounded_far_below_the_recursion_limit(begin: str, end: str) -> None:
    levels = strict_json.MAX_DEPTH // (2 if begin.startswith("[{") else 1)
    strict_json.parse((begin * levels + "1" + end * levels).encode())
    with pytest.raises(ValueError, match=f"nested too deeply, more than {strict_json.MAX_DEPTH} levels"):
        strict_json.parse((begin * (levels + 1) + "1" + end * (levels + 1)).encode())


def test_a_file_of_settings_holds_an_object_with_integers_as_tokenizers_write_them(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text('{"model_max_length": 1000000000000000019884624838656}')
    assert strict_json.load_settings(path) == {"model_max_length": 1000000000000000019884624838656}
    with pytest.raises(ValueError, match="not an integer in range"):
        strict_json.load(path)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "must hold a JSON object"),
        ('{"a": %s}' % ("1" * 41), "'1{41}' is not an integer in range"),
        ('{"a": %s}' % ("1" * 4000), "is not an integer in range"),
        ('{"a": "%s"}' % ("a" * strict_json.MAX_SETTINGS_NBYTES), "larger than 10000000 bytes"),
    ],
    ids=["list", "41 digits", "4000 digits", "size"],
)
def test_settings_out_of_bounds_are_refused_in_a_few_words(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=fault) as error:
        strict_json.load_settings(path)
    assert len(str(error.value)) < 200


def test_a_duplicate_key_is_found_among_many() -> None:
    many = ",".join(f'"{number}":0' for number in range(200_000))
    with pytest.raises(ValueError, match="duplicate key '7'"):
        strict_json.parse(f'{{{many},"7":1}}'.encode())
