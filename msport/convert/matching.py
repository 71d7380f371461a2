"""Matches the tensors of a checkpoint to the table of its architecture: which sources make which parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msport.architectures import Architecture, Dropped, Recipe, Weight, get_architecture, read_config
from msport.checkpoint import DType, TensorInfo, fp8
from msport.checkpoint.dtypes import FLOAT8_E4M3FN, FLOATING, UINT8
from msport.convert.tensors import Catalog
from msport.errors import CheckpointError, UnsupportedError, enumerate_some, name_in_text, quote

_PACKED = (UINT8,)
_FP8 = (FLOAT8_E4M3FN,)
_FP8_BLOCK = [fp8.BLOCK, fp8.BLOCK]


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


def match_checkpoint(catalog: Catalog) -> tuple[Architecture, list[Match], list[Dropped]]:
    """The architecture of a checkpoint, a recipe for each of its parameters, and the unneeded tensors.

    Raises ConfigError, UnsupportedError, and CheckpointError that names everything that does not fit.
    """
    where = catalog.folder / "config.json"
    data = read_config(catalog.folder)
    architecture = get_architecture(data, where)
    _check_quantization(architecture, data, where)
    config = architecture.parse(data, where)
    matches, dropped, problems = match(architecture.weights(config), architecture.dropped(config), catalog.tensors)
    if problems:
        raise CheckpointError(
            f"{catalog.folder}: the tensors are not those of {architecture.name} with this config.json: {problems};"
            " download the model again, or check that config.json and weights belong together"
        )
    return architecture, matches, dropped


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
    return _FP8 if recipe.transform.startswith("fp8") and not source.endswith(fp8.SCALES) else FLOATING


def is_packed(recipe: Recipe) -> bool:
    """Whether the sources are MXFP4 blocks and scales."""
    return recipe.transform.startswith("mxfp4")


def _check_quantization(architecture: Architecture, data: Mapping[str, Any], where: Path) -> None:
    quantization = data.get("quantization_config")
    if quantization is None:
        return
    fields = quantization if isinstance(quantization, Mapping) else {}
    method = fields.get("quant_method")
    if method not in architecture.quantization:
        readable = " or ".join(("unquantized", *architecture.quantization))
        raise UnsupportedError(f"{where}: quantized with {quote(method)}; msport reads {architecture.title} {readable}")
    block = fields.get("weight_block_size")
    if method == "fp8" and block != _FP8_BLOCK:
        raise UnsupportedError(f"{where}: FP8 with weight_block_size {quote(block)}; msport reads {_FP8_BLOCK} alone")


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
        missing = f" (no {name}{fp8.SCALES} beside it)" if tensor.dtype in _FP8 else ""
        problems.wrong_dtype.append(f"{name} is {tensor.dtype.name}{missing}, msport reads {allowed}")
