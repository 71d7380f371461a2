"""A strict and bounded parser for untrusted JSON files.

This module sets the limits of depth, integers and file size for every JSON file that msport reads.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from msport.checkpoint.regular_files import read_whole
from msport.errors import quote

# The largest integer of a checkpoint's formats is an unsigned 64-bit offset.
MAX_DIGITS = 20
# Many tokenizer_config.json files write "no limit" as 1e30, as an integer.
MAX_SETTING_DIGITS = 40
# Far above any real document, and far below the limit of Python's stack.
MAX_DEPTH = 100
# An index or a manifest of 250,000 tensors needs a third of it.
MAX_NBYTES = 100_000_000
# config.json and similar files need a few kB; a tokenizer's settings with thousands of added tokens, less than a tenth.
MAX_SETTINGS_NBYTES = 10_000_000

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOO_DEEP = f"not usable JSON: nested too deeply, more than {MAX_DEPTH} levels"


def load(path: Path, *, max_nbytes: int = MAX_NBYTES, max_digits: int = MAX_DIGITS) -> Any:
    """Parse the file `path` as `parse` does; ValueError also if it is larger than `max_nbytes`.

    Raises CheckpointError if it is no regular file.
    """
    return parse(read_whole(path, max_nbytes), max_digits=max_digits)


def load_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a settings file such as ``config.json``. Raises as `load`, and ValueError if it is no
    object.
    """
    document = load(path, max_nbytes=MAX_SETTINGS_NBYTES, max_digits=MAX_SETTING_DIGITS)
    if not isinstance(document, dict):
        raise ValueError("must hold a JSON object")
    return document


def naturals(value: Any) -> tuple[int, ...] | None:
    """The parsed value if it is a list of non-negative integers, else None."""
    # `type(...) is int`: True is an int to isinstance, and to Python's arithmetic.
    if isinstance(value, list) and all(type(item) is int and item >= 0 for item in value):
        return tuple(value)
    return None


def parse(text: bytes, *, max_digits: int = MAX_DIGITS) -> Any:
    """Parse UTF-8 JSON. Raises ValueError with a short reason for everything that a strict parser refuses.

    It refuses more than ``json.loads``: duplicate keys (Python would keep the last), NaN, Infinity and numbers that
    would become infinite, integers beyond `max_digits` or written ``-0``, unpaired surrogates, and nesting beyond
    `MAX_DEPTH`.
    """
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    try:
        document = json.loads(
            decoded,
            object_pairs_hook=_unique,
            parse_int=partial(_integer, max_digits),
            parse_float=_finite,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_depth(document)
    if _ESCAPED_SURROGATE.search(decoded):  # UTF-8 itself cannot produce a surrogate
        _refuse_surrogates(document)
    return document


def _check_depth(document: Any) -> None:
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        containers = [value for value in level if isinstance(value, (dict, list))]
        if not containers:
            return
        level = [item for each in containers for item in (each.values() if isinstance(each, dict) else each)]
    raise ValueError(_TOO_DEEP)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {quote(twice)}")
    return document


def _refuse_surrogates(value: Any) -> None:
    """Check every string of a document whose depth was checked."""
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_surrogates(key)
            _refuse_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _refuse_surrogates(item)
    elif isinstance(value, str) and not value.isascii() and _SURROGATE.search(value):
        raise ValueError(f"unpaired surrogate in {quote(value)}")


def _integer(max_digits: int, digits: str) -> int:
    if len(digits) > max_digits or digits == "-0":
        raise ValueError(f"{quote(digits)} is not an integer in range")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{quote(digits)} is not a number in range")
    return number


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
