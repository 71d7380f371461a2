"""``strict_json`` beside Python's own parser."""

from __future__ import annotations

import json
from pathlib import Path

from fuzz import lenient_json
from fuzz.messages import assert_fit_for_a_line
from msport.checkpoint import strict_json

WORDS = [b'"', b"\\u", b"\\ud800", b"\\udc00", b"[", b"]", b"{", b"}", b":", b",", b"-0", b"1e999", b"NaN", b"Infinity"]
WORDS += [b"true", b"null", b"\xef\xbb\xbf", b"18446744073709551616", b'"a":', b"1.5", b"\xf0\x9f\x98\x80", b"\\n"]


def seeds() -> list[bytes]:
    texts = ["{}", "[]", '{"a":1,"b":[true,null,-1.5e3]}', '"\\u00e9\\ud83d\\ude00"', '{"a":{"a":{"a":[]}}}', "NaN"]
    texts += [
        '{"a":1,"a":2}',
        "-0",
        "123456789012345678901",
        "1e999",
        '"\\ud800"',
        "[" * 100 + "]" * 100,
        "[" * 101 + "]" * 101,
        '"é"',
        " 1 ",
    ]
    return [text.encode() for text in texts]


def check(_path: Path, content: bytes) -> None:
    try:
        document = strict_json.parse(content)
    except ValueError as error:
        assert_fit_for_a_line(str(error))
        if is_strict(content):
            raise AssertionError("refused without a reason") from error
        return
    assert is_strict(content)
    assert document == json.loads(content.decode())
    assert strict_json.parse(json.dumps(document).encode()) == document


def is_strict(content: bytes) -> bool:
    """Whether every reader of JSON takes `content` for the same."""
    try:
        document = lenient_json.parse(content.decode())
    except (ValueError, RecursionError):
        return False
    if lenient_json.depth(document) > strict_json.MAX_DEPTH:
        return False
    faults = (lenient_json.is_repeated, lenient_json.is_out_of_range, lenient_json.is_unpaired)
    return not any(fault(value) for value in lenient_json.walk(document) for fault in faults)
