"""Names and values from hostile files, made fit for a message of one line."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 8
_REPR.maxlong = 40


def quote(value: Any) -> str:
    """``repr(value)`` with control characters escaped and the middle of anything long left out."""
    return _REPR.repr(value)


def name_in_text(name: str, most: int = 120) -> str:
    """`name` as it is if it is printable and has at most `most` characters, else as `quote` writes it."""
    return name if name.isprintable() and len(name) <= most else quote(name)


def enumerate_some(items: Sequence[str], shown: int = 8) -> str:
    """The first `shown` of `items` with commas between them, and how many more there are."""
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + rest
