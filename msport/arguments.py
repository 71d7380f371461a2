"""Checks arguments of the public functions: their types against the annotations, and counts.

Python does not check them, and a wrong type would fail late: as a TypeError deep inside, or a text taken for a list of
letters.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import cache, partial, wraps
from inspect import signature
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from msport.errors import UsageError

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Singular and plural.
_WORDS = {
    bool: ("True or False", "True or False"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
    NoneType: ("None", "None"),
}


def checked(call: Callable[_P, _R]) -> Callable[_P, _R]:
    """Wraps `call` so that an argument of a wrong type raises `UsageError` before anything runs."""
    parameters = signature(call)
    # Resolved at the first call, because annotations may name later definitions.
    hints = cache(partial(get_type_hints, call))

    @wraps(call)
    def check_and_call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        for name, value in parameters.bind(*args, **kwargs).arguments.items():
            hint = hints().get(name, Any)
            if not _fits(value, hint):
                shown = " ".join(reprlib.repr(value).split())
                raise UsageError(f"`{name}` must be {_describe(hint)}, not {shown}")
        return call(*args, **kwargs)

    return check_and_call


def require_counts(**counts: int) -> None:
    """Raises `UsageError` for the first of `counts` that is below 1."""
    for name, value in counts.items():
        if value < 1:
            raise UsageError(f"{name} must be at least 1, not {value}")


def _fits(value: object, hint: Any) -> bool:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if kind is Any:
        return True
    if kind is Literal:
        return isinstance(value, str)  # the call itself checks which text is valid, as for the command line
    if kind is Sequence:  # an array is fine, but a text is not a list of letters
        several = isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping, Set))
        return several and all(_fits(each, inner[0]) for each in value)  # type: ignore[attr-defined]
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _describe(hint: Any, several: bool = False) -> str:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(_describe(each, several) for each in inner)
    if kind is Literal:
        return f"one of {', '.join(inner)}"
    if kind is Sequence:
        return f"{'lists' if several else 'a list'} of {_describe(inner[0], several=True)}"
    if kind is Callable:
        return "a function"
    return _WORDS[kind][several] if kind in _WORDS else f"a {kind.__name__}"
