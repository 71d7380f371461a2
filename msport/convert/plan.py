"""The plan of a conversion: every byte of the output, placed before the first one is written.

A plan is made only from headers and ``config.json``, and is pure data: name, dtype, shape, sources, transform, file and
place in that file of each output tensor. ``--dry-run`` prints it; ``execute`` runs it, in any order and in parallel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msport.architectures import Architecture, Dropped, get_architecture, read_config
from msport.checkpoint import DType, Layout, ckpt, fp8, safetensors
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.convert.matching import FLOATING, Match, is_packed, match
from msport.convert.shards import cut, kept_files, kept_layout, shard_names
from msport.convert.tensors import Catalog, OutputTensor, SourceTensor
from msport.errors import CheckpointError, UnsupportedError, UsageError, quote
from msport.sizing.units import parse_size

AUTO = "auto"
# None: the dtype of each tensor's own sources. MXFP4 packs the experts; everything else in such a model is bfloat16.
DTYPES: dict[str, DType | None] = {
    AUTO: None,
    "bfloat16": BFLOAT16,
    "float16": FLOAT16,
    "float32": FLOAT32,
    "mxfp4": BFLOAT16,
}
FORMATS = {"safetensors": safetensors.plan_layout, "ckpt": ckpt.plan_layout}
MAX_SHARD_SIZE = "5GB"

_FP8_BLOCK = [fp8.BLOCK, fp8.BLOCK]


@dataclass(frozen=True, slots=True)
class Shard:
    """A file to write; `layout` describes all of it except the tensors' bytes.

    With `source`, the file is a byte-for-byte copy of the source's file of that name.
    """

    file: str
    layout: Layout
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Rounded:
    """The number of tensors that are rounded from one dtype to another."""

    source: str
    target: str
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole conversion: `tensors` in their order in `shards`, and the sources that are dropped on purpose.

    `dtype` is the requested one; for ``auto``, that of most parameters.
    """

    architecture: str
    dtype: str
    format: str
    tensors: tuple[OutputTensor, ...]
    shards: tuple[Shard, ...]
    dropped: tuple[Dropped, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def file_nbytes(self) -> int:
        """Bytes of all shards, headers included."""
        return sum(shard.layout.file_size for shard in self.shards)

    @property
    def rounded(self) -> tuple[Rounded, ...]:
        """The tensors that may be rounded, counted by dtypes."""
        pairs = Counter((each.rounded_from.name, each.dtype.name) for each in self.tensors if each.rounded_from)
        return tuple(Rounded(*names, count) for names, count in pairs.items())


def make_plan(
    catalog: Catalog,
    *,
    dtype: str = AUTO,
    format: str = "safetensors",  # noqa: A002  the contract's name
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> Plan:
    """The plan that converts the checkpoint `catalog` to `dtype` and `format`. Reads only ``config.json``.

    Floating-point tensors become `dtype`; integers are never cast. With ``auto`` each keeps its dtype (a stack gets its
    widest), and MXFP4 and FP8 become bfloat16; the headers decide, not ``config.json``. With ``mxfp4`` packed experts
    stay packed and everything else becomes bfloat16. A shard holds at most `max_shard_size` bytes of tensors, or one
    larger tensor. If nothing in a model changes, its safetensors files on disk are kept.

    Raises CheckpointError that names all tensors that are missing, unexpected, or of a wrong shape or dtype;
    ConfigError; UnsupportedError; and UsageError for an unknown `dtype` or `format`.
    """
    _check_choice("dtype", dtype, DTYPES)
    _check_choice("format", format, FORMATS)
    architecture, matches, dropped = match_checkpoint(catalog)
    outputs = [output for found in matches for output in _outputs(found, dtype, catalog)]
    if dtype == "mxfp4" and not any(is_packed(found.recipe) for found in matches):
        raise UsageError(f"{catalog.folder}: holds no MXFP4 tensors to keep; choose auto, bfloat16, float16 or float32")
    tensors, shards = _place(outputs, format, parse_size(max_shard_size), catalog)
    named = _most_common(tensors) if dtype == AUTO else dtype
    return Plan(architecture.name, named, format, tensors, shards, tuple(dropped))


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


def _check_choice(what: str, value: str, choices: Mapping[str, Any]) -> None:
    if value not in choices:
        raise UsageError(f"{what} {value!r} is not known; choose one of {', '.join(choices)}")


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


def _outputs(found: Match, dtype: str, catalog: Catalog) -> Iterator[OutputTensor]:
    sources = tuple(_source(name, catalog) for name, _ in found.recipe.sources)
    if dtype == "mxfp4" and is_packed(found.recipe):
        for source in sources:
            yield OutputTensor(source.name, source.dtype, source.shape, "copy", (source,))
    else:
        target = DTYPES[dtype] or _own_dtype(sources)
        yield OutputTensor(found.weight.name, target, found.weight.shape, found.recipe.transform, sources)


def _own_dtype(sources: Sequence[SourceTensor]) -> DType:
    """The narrowest floating dtype that holds every value of `sources`; bfloat16 for MXFP4 and FP8."""
    found = {source.dtype for source in sources}
    if not found <= set(FLOATING):
        return BFLOAT16
    return found.pop() if len(found) == 1 else FLOAT32


def _most_common(tensors: Sequence[OutputTensor]) -> str:
    """The dtype of most of the parameters."""
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype.name] += math.prod(tensor.shape)
    return max(elements, key=elements.__getitem__)


def _source(name: str, catalog: Catalog) -> SourceTensor:
    tensor = catalog.tensors[name]
    return SourceTensor(name, tensor.dtype, tensor.shape, catalog.files[name].name)


def _place(
    outputs: Sequence[OutputTensor], file_format: str, max_shard_size: int, catalog: Catalog
) -> tuple[tuple[OutputTensor, ...], tuple[Shard, ...]]:
    """Places `outputs` in shards: first the source's files that can be kept, then the others in order."""
    kept = kept_files(outputs, catalog, max_shard_size) if file_format == "safetensors" else {}
    layouts: list[tuple[Layout, str | None]] = [
        (kept_layout(path, tensors), path.name) for path, tensors in kept.items()
    ]
    names = {tensor.name for tensors in kept.values() for tensor in tensors}
    for group in cut((output for output in outputs if output.name not in names), max_shard_size):
        layouts.append((FORMATS[file_format]((each.name, each.dtype, each.shape) for each in group), None))
    by_name = {output.name: output for output in outputs}
    files = shard_names(len(layouts), file_format)
    tensors = [
        replace(by_name[name], file=file, extents=tensor.extents)
        for file, (layout, _) in zip(files, layouts, strict=True)
        for name, tensor in layout.tensors.items()
    ]
    shards = [Shard(file, layout, source) for file, (layout, source) in zip(files, layouts, strict=True)]
    return tuple(tensors), tuple(shards)
