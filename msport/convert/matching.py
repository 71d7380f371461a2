"""Matches the tensors of a checkpoint to the table of its architecture: which sources make which parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from msport.architectures import Architecture, Dropped, Form, Weight, get_architecture, read_config
from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, DTYPES, FLOAT8_E4M3FN
from msport.checkpoint.manifest import FILE_NAME as MANIFEST_NAME
from msport.convert.tensors import Catalog
from msport.encodings import (
    Encoding,
    Part,
    Plain,
    Quantization,
    Regroupable,
    check_method,
    find,
    fp8,
    read_quantization,
    undeclared,
)
from msport.errors import CheckpointError, enumerate_some, name_in_text


@dataclass(frozen=True)
class Match:
    """A parameter, the form in which a checkpoint ships it, and the encoding of each matrix of that form."""

    weight: Weight
    form: Form
    encodings: tuple[Encoding, ...]

    @cached_property
    def parts(self) -> tuple[tuple[Part, ...], ...]:
        """The tensors that hold each matrix."""
        pairs = zip(self.encodings, self.form.matrices, strict=True)
        return tuple(encoding.parts(matrix.name, matrix.shape) for encoding, matrix in pairs)


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
    """The architecture of a checkpoint, the form of each of its parameters, and the unneeded tensors.

    Raises ConfigError, UnsupportedError, and CheckpointError that names everything that does not fit.
    """
    where = catalog.folder / "config.json"
    data = read_config(catalog.folder)
    architecture = get_architecture(data, where)
    check_method(data.get("quantization_config"), where)
    quantization = read_quantization(data, where)
    config = architecture.parse(data, where)
    weights, drops = architecture.weights(config), architecture.dropped(config)
    matches, dropped, problems = match(weights, drops, catalog.tensors, quantization, where)
    # A converted folder keeps the config of its source, whatever became of the weights.
    if quantization is not None and not (catalog.folder / MANIFEST_NAME).exists():
        _check_use(quantization, matches)
    if problems:
        raise CheckpointError(
            f"{catalog.folder}: the tensors are not those of {architecture.name} with this config.json: {problems};"
            " download the model again, or check that config.json and weights belong together"
        )
    return architecture, matches, dropped


def _check_use(quantization: Quantization, matches: Iterable[Match]) -> None:
    """Raises CheckpointError if no weight is stored as `quantization` says."""
    if not any(encoding.name == quantization.method for found in matches for encoding in found.encodings):
        raise quantization.without_tensors()


def match(
    weights: Iterable[Weight],
    dropped: Iterable[Dropped],
    tensors: Mapping[str, TensorInfo],
    quantization: Quantization | None = None,
    where: Path = Path("config.json"),
) -> tuple[list[Match], list[Dropped], Problems]:
    """Match every parameter to its sources and every source tensor to exactly one parameter or one drop.

    `quantization` is what the config, the file `where`, says of packed weights. Returns the matches in the order of
    `weights`, the dropped tensors that `tensors` holds, and all problems.
    """
    problems = Problems()
    matches = []
    unused = dict(tensors)
    for weight in weights:
        found = _adopt(match_weight(weight, tensors), quantization, where)
        for part in (part for parts in found.parts for part in parts):
            _check(part, unused.pop(part.name, None), problems)
        matches.append(found)
    drops = [row for row in dropped if unused.pop(row.name, None)]
    problems.unexpected = list(map(name_in_text, unused))
    return matches, drops, problems


def match_weight(weight: Weight, tensors: Mapping[str, TensorInfo]) -> Match:
    """The form of `weight` of which `tensors` hold the largest share; among equals, the one of most tensors."""
    found = [Match(weight, form, _encodings(form, tensors)) for form in weight.forms]
    return found[0] if len(found) == 1 else max(found, key=lambda each: _share(each, tensors))


def _adopt(found: Match, quantization: Quantization | None, where: Path) -> Match:
    """`found` with what only the config says of its encodings. Raises ConfigError if they contradict each other."""
    if not any(isinstance(encoding, Regroupable) for encoding in found.encodings):
        return found
    pairs = zip(found.encodings, found.form.matrices, strict=True)
    if quantization is None:
        raise undeclared(found.encodings[0], found.weight.name, where)
    adopted = (quantization.adopt(encoding, matrix.name, matrix.shape[-1]) for encoding, matrix in pairs)
    return replace(found, encodings=tuple(adopted))


def _encodings(form: Form, tensors: Mapping[str, TensorInfo]) -> tuple[Encoding, ...]:
    return tuple(find(matrix.name, matrix.shape, tensors) or Plain(BFLOAT16) for matrix in form.matrices)


def _share(found: Match, tensors: Mapping[str, TensorInfo]) -> tuple[float, int]:
    names = [part.name for parts in found.parts for part in parts]
    return sum(name in tensors for name in names) / len(names), len(names)


def _check(part: Part, tensor: TensorInfo | None, problems: Problems) -> None:
    if tensor is None:
        problems.missing.append(part.name)
        return
    if tensor.shape != part.shape:
        problems.misshapen.append(f"{part.name} is {list(tensor.shape)}, config.json says {list(part.shape)}")
    if tensor.dtype not in part.dtypes:
        allowed = ", ".join(dtype.name for dtype in DTYPES if dtype in part.dtypes)
        missing = f" (no {part.name}{fp8.SCALES} beside it)" if tensor.dtype == FLOAT8_E4M3FN else ""
        problems.wrong_dtype.append(f"{part.name} is {tensor.dtype.name}{missing}, msport reads {allowed}")
