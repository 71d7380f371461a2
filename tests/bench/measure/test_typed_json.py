"""What `asdict` wrote is read as the same dataclasses, and what is not of their types is refused by its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from msport.bench.measure.typed_json import parse


@dataclass(frozen=True)
class Leaf:
    seconds: float
    name: str | None = None


@dataclass(frozen=True)
class Tree:
    leaves: tuple[Leaf, ...]
    by_name: Mapping[str, Leaf]
    count: int = 0
    best: Leaf | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


TREE = Tree((Leaf(1.5), Leaf(2, "two")), {"a": Leaf(0.0)}, 3, Leaf(1.0), {"threads": 2, "names": ["x"]})


def test_what_was_written_is_read_again() -> None:
    assert parse(Tree, json.loads(json.dumps(asdict(TREE)))) == TREE
    assert parse(Tree, asdict(TREE)) == TREE


def test_fields_with_defaults_may_be_missing_and_other_keys_are_ignored() -> None:
    assert parse(Tree, {"leaves": [], "by_name": {}, "derived": 1}) == Tree((), {})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"leaves": [{}]}, r"^leaves\[0\]\.seconds is missing$"),
        ({"leaves": [{"seconds": "fast"}]}, r"^leaves\[0\]\.seconds is 'fast', not a number$"),
        ({"leaves": {"seconds": 1.0}}, r"^leaves is \{'seconds': 1\.0\}, not a list$"),
        ({"leaves": [None]}, r"^leaves\[0\] is None, not an object$"),
        ({"by_name": {"b": 1}}, r"^by_name\.b is 1, not an object$"),
        ({"count": 1.5}, r"^count is 1\.5, not a whole number$"),
        ({"count": True}, r"^count is True, not a whole number$"),
        ({"best": {"seconds": 1.0, "name": 2}}, r"^best\.name is 2, not a text$"),
    ],
)
def test_what_is_not_of_the_type_is_refused_by_its_place(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(Tree, {**asdict(TREE), **changed})
    with pytest.raises(ValueError, match="it is 1, not an object"):
        parse(Tree, 1)
