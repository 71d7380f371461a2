"""JSON as other people's files hold it, parsed without Python's leniency."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from msport.checkpoint.quoting import quote

# The largest integer of the formats read here is an unsigned 64-bit offset, of 20 digits.
_MAX_DIGITS = 20
_MAX_FILE = 100_000_000


def load(path: Path) -> Any:
    """Parse a file as ``parse`` does; ValueError also if it is larger than any file of its kind, 100 MB."""
    if path.stat().st_size > _MAX_FILE:
        raise ValueError(f"larger than {_MAX_FILE} bytes")
    return parse(path.read_bytes())


def naturals(value: Any) -> tuple[int, ...] | None:
    """The parsed value if it is a list of non-negative integers, else None."""
    # `type(...) is int`: True is an int to isinstance, and to Python's arithmetic.
    if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        return tuple(value)
    return None


def parse(text: bytes) -> Any:
    """Parse UTF-8 JSON; ValueError, in a few words, for whatever a strict parser refuses.

    Beyond ``json.loads`` these are: a duplicate key (Python would keep the last), NaN, Infinity and what would become
    infinite, an integer beyond 20 digits or written ``-0``, an unpaired surrogate, and nesting too deep for the
    parser's stack.
    """
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    try:
        document = json.loads(
            decoded,
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
        _refuse_surrogates(document)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError("not JSON of any use: nested too deeply") from error
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for key, value in pairs:
        if key in document:
            raise ValueError(f"duplicate key {quote(key)}")
        _refuse_surrogates([key, value])
        document[key] = value
    return document


def _refuse_surrogates(value: Any) -> None:
    """Check a string, or the strings of a list; objects are checked as they are built."""
    if isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)
    elif (
        isinstance(value, str) and not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value)
    ):
        raise ValueError(f"unpaired surrogate in {quote(value)}")


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS or digits == "-0":
        raise ValueError(f"{digits[:_MAX_DIGITS]} is not an integer in range")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{quote(digits)} is not a number in range")
    return number


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
