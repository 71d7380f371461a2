"""How a list of tensors becomes files, and what the files are called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Item = TypeVar("Item", bound=Sized)


def cut(items: Iterable[Item], max_nbytes: int) -> list[list[Item]]:
    """`items` in their order, in groups of at most `max_nbytes` bytes each; a larger item has a group to itself."""
    groups: list[list[Item]] = []
    room = 0
    for item in items:
        if not groups or item.nbytes > room:
            groups.append([])
            room = max_nbytes
        groups[-1].append(item)
        room -= item.nbytes
    return groups


def shard_names(count: int, suffix: str) -> list[str]:
    """Names as the Hub gives them: ``model.safetensors`` alone, ``model-00001-of-00003.safetensors`` in company."""
    if count == 1:
        return [f"model.{suffix}"]
    return [f"model-{number:05}-of-{count:05}.{suffix}" for number in range(1, count + 1)]
