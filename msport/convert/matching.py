"""Matches the tensors of a checkpoint to the table of its architecture: which sources make which parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from msport.architectures import Dropped, Recipe, Weight
from msport.checkpoint import DType, TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT8_E4M3FN, FLOAT16, FLOAT32, UINT8
from msport.errors import enumerate_some, name_in_text

FLOATING = (FLOAT32, FLOAT16, BFLOAT16)
FP8_SCALES = "_scale_inv"
_PACKED = (UINT8,)
_FP8 = (FLOAT8_E4M3FN,)


@dataclass(frozen=True, slots=True)
class Match:
    """A parameter and a recipe for which the checkpoint has all sources."""

    weight: Weight
    recipe: Recipe


@dataclass(slots=True)
class Problems:
    """The reasons why a checkpoint cannot be converted, one sentence per tensor."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    wrong_dtype: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.missing, self.unexpected, self.misshapen, self.wrong_dtype))

    def __str__(self) -> str:
        kinds = {
            "missing": self.missing,
            "not in the architecture's table": self.unexpected,
            "wrong shape": self.misshapen,
            "wrong dtype": self.wrong_dtype,
        }
        return "; ".join(f"{kind}: {enumerate_some(names)}" for kind, names in kinds.items() if names)


def match(
    weights: Iterable[Weight], dropped: Iterable[Dropped], tensors: Mapping[str, TensorInfo]
) -> tuple[list[Match], list[Dropped], Problems]:
    """Match every parameter to its sources and every source tensor to exactly one parameter or one drop.

    Returns the matches in the order of `weights`, the dropped tensors that `tensors` holds, and all problems.
    """
    problems = Problems()
    matches = []
    unused = dict(tensors)
    for weight in weights:
        recipe = _choose(weight, tensors)
        for name, shape in recipe.sources:
            _check(name, shape, expected_dtypes(recipe, name), unused.pop(name, None), problems)
        matches.append(Match(weight, recipe))
    drops = [row for row in dropped if unused.pop(row.name, None)]
    problems.unexpected = list(map(name_in_text, unused))
    return matches, drops, problems


def expected_dtypes(recipe: Recipe, source: str) -> tuple[DType, ...]:
    """The dtypes that the tensor `source` of `recipe` may have."""
    if is_packed(recipe):
        return _PACKED
    return _FP8 if recipe.transform.startswith("fp8") and not source.endswith(FP8_SCALES) else FLOATING


def is_packed(recipe: Recipe) -> bool:
    """Whether the sources are MXFP4 blocks and scales."""
    return recipe.transform.startswith("mxfp4")


def _choose(weight: Weight, tensors: Mapping[str, TensorInfo]) -> Recipe:
    """The recipe with the fewest missing sources; among equals, the one with the most sources.

    FP8 weights have the same names as other weights; only their scales identify them.
    """
    return max(weight.recipes, key=lambda recipe: (_share(recipe, tensors), len(recipe.sources)))


def _share(recipe: Recipe, tensors: Mapping[str, TensorInfo]) -> float:
    return sum(name in tensors for name, _ in recipe.sources) / len(recipe.sources)


def _check(
    name: str, shape: tuple[int, ...], dtypes: tuple[DType, ...], tensor: TensorInfo | None, problems: Problems
) -> None:
    if tensor is None:
        problems.missing.append(name)
        return
    if tensor.shape != shape:
        problems.misshapen.append(f"{name} is {list(tensor.shape)}, config.json says {list(shape)}")
    if tensor.dtype not in dtypes:
        allowed = ", ".join(dtype.name for dtype in dtypes)
        missing = f" (no {name}{FP8_SCALES} beside it)" if tensor.dtype in _FP8 else ""
        problems.wrong_dtype.append(f"{name} is {tensor.dtype.name}{missing}, msport reads {allowed}")
