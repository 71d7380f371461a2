"""Tensors summarised over layers: names that differ only in numbers become one row."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from msport.checkpoint import DType

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


class Described(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> DType: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Pattern:
    """`count` tensors of one dtype and shape, `nbytes` in total, whose names differ only in numbers (``*``)."""

    name: str
    dtype: DType
    shape: tuple[int, ...]
    count: int
    nbytes: int


def pattern_name(name: str) -> str:
    """`name` with ``*`` for each number."""
    return _NUMBER.sub("*", name)


def summarise(tensors: Iterable[Described]) -> list[Pattern]:
    """The patterns of `tensors`, in the order in which each first appears."""
    groups: dict[tuple[str, DType, tuple[int, ...]], list[int]] = {}
    for tensor in tensors:
        key = (pattern_name(tensor.name), tensor.dtype, tensor.shape)
        groups.setdefault(key, []).append(tensor.nbytes)
    return [Pattern(*key, len(sizes), sum(sizes)) for key, sizes in groups.items()]
