"""JSON as Python reads it, with nothing lost on the way: what a strict reader may have found wrong can be seen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any


class Pairs(list[tuple[str, Any]]):
    """An object with its names in order, repeated ones included."""


class Digits(str):
    """An integer as it is written."""

    __slots__ = ()


class Constant(str):
    """NaN, Infinity or -Infinity."""

    __slots__ = ()


def parse(text: str) -> Any:
    """Raises ValueError, and RecursionError where nesting is too deep for Python."""
    return json.loads(text, object_pairs_hook=Pairs, parse_int=Digits, parse_constant=Constant)


def walk(document: Any) -> Iterator[Any]:
    """Every value and every name in `document`."""
    pending = [document]
    while pending:
        value = pending.pop()
        yield value
        if isinstance(value, Pairs):
            pending += [part for pair in value for part in pair]
        elif isinstance(value, list):
            pending += value


def depth(document: Any) -> int:
    """How many objects and arrays lie in one another; an object's pairs count as nothing."""
    deepest, pending = 0, [(document, 0)]
    while pending:
        value, above = pending.pop()
        if isinstance(value, list):
            parts = (part for _, part in value) if isinstance(value, Pairs) else value
            pending += [(part, above + 1) for part in parts]
            deepest = max(deepest, above + 1)
    return deepest


def names(value: Pairs) -> list[str]:
    return [name for name, _ in value]


def is_repeated(value: Any) -> bool:
    """An object in which a name stands twice."""
    return isinstance(value, Pairs) and len(set(names(value))) < len(value)


def is_out_of_range(value: Any) -> bool:
    """A number that no 64 bits hold, or that other readers take for a float."""
    if isinstance(value, Digits):
        return len(value) > 20 or value == "-0"
    return isinstance(value, Constant) or (isinstance(value, float) and math.isinf(value))


def is_unpaired(value: Any) -> bool:
    """A string that is not Unicode."""
    return type(value) is str and any("\ud800" <= character <= "\udfff" for character in value)
