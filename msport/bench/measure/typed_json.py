"""Reads JSON as dataclasses; `dataclasses.asdict` makes the values for writing."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")

_WORDS = {list: "a list", dict: "an object", str: "a text", bool: "true or false", int: "a whole number"}


def parse(kind: type[_T], value: object) -> _T:
    """Converts the JSON value `value` to the dataclass `kind`.

    Fields may be dataclasses, tuples, mappings or plain values, each optionally None. A field with a default may be
    missing; unknown keys are ignored. Raises `ValueError` that names the place in `value`.
    """
    parsed: _T = _parse(kind, value, "")
    return parsed


def _parse(hint: Any, value: Any, place: str) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        (kind,) = (each for each in inner if each is not NoneType)
        return None if value is None else _parse(kind, value, place)
    if isinstance(kind, type) and is_dataclass(kind):
        document = _checked(dict, value, place)
        names = [field.name for field in fields(kind) if field.name in document or _is_required(field)]
        return kind(**{name: _parse(_hints(kind)[name], *_item(document, name, place)) for name in names})
    if kind is tuple:
        items = enumerate(_checked(list, value, place))
        return tuple(_parse(inner[0], each, f"{place}[{number}]") for number, each in items)
    if kind in (dict, Mapping):
        return {key: _parse(inner[1], each, f"{place}.{key}") for key, each in _checked(dict, value, place).items()}
    return value if kind is Any else _checked(kind, value, place)


_hints = cache(get_type_hints)


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _item(document: Mapping[str, Any], name: str, place: str) -> tuple[Any, str]:
    inside = f"{place}.{name}".lstrip(".")
    if name not in document:
        raise ValueError(f"{inside} is missing")
    return document[name], inside


def _checked(kind: type, value: Any, place: str) -> Any:
    allowed = {list: (list, tuple), float: (int, float)}.get(kind, kind)
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{place or 'it'} is {reprlib.repr(value)}, not {_WORDS.get(kind, 'a number')}")
    return value
