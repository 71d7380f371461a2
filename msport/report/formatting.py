"""Writes values as short text."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def display_width(text: str) -> int:
    """The number of terminal columns of `text`; Chinese, Japanese and Korean characters take two."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def in_other_dtypes(storage: Sequence[str], dtype: str) -> str:
    """`` with weights in bfloat16 and mxfp4`` if the encodings `storage` of matrices are not just `dtype`, the dtype of
    computation; otherwise nothing.
    """
    if tuple(storage) in ((), (dtype,)):
        return ""
    *others, last = storage
    return f" with weights in {', '.join(others)}{' and ' * bool(others)}{last}"


def shortened(text: str, width: int) -> str:
    """`text` on one line of at most `width` columns."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    if display_width(line) <= width:
        return line
    while display_width(line) > width - 1:
        line = line[:-1]
    return f"{line.rstrip()}…"


def number(value: float, digits: int = 4) -> str:
    """`value` with `digits` significant digits (at least all integer digits), without an exponent: ``0.0123``,
    ``12,345``.
    """
    if value == 0.0 or not math.isfinite(value):
        return "0" if value == 0.0 else "not finite"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def scientific(value: float, digits: int = 2) -> str:
    """`value` with `digits` decimals and an exponent: ``1.23e-05``."""
    return f"{value:.{digits}e}" if math.isfinite(value) else "not finite"


def times(ratio: float) -> str:
    """A ratio: ``2.3``, or with two significant digits from a hundred on."""
    if not math.isfinite(ratio):
        return "not finite"
    return f"{ratio:.1f}" if ratio < 100.0 else f"{float(f'{ratio:.1e}'):,.0f}"


def power_of_ten(exponent: int) -> str:
    """10 to the power of `exponent`."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def percent(share: float) -> str:
    """A share in whole percents; below one percent with one decimal."""
    return f"{share:.1%}" if 0.0 < share < 0.0095 else f"{share:.0%}"


def exact_percent(share: float) -> str:
    """Three significant digits of a percentage, for ticks."""
    return f"{number(100 * share, 3)}%"


def counted(number: int, noun: str, several: str | None = None) -> str:
    """``1 run``, ``3 runs``; `several` is an irregular plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {several or f'{noun}s'}"


def utc(date: str) -> str:
    """A time in UTC, given as ISO 8601, as readable text."""
    return date.replace("T", " ").replace("+00:00", " UTC")


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
