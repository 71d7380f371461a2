"""The plan of a conversion: every byte of the output, placed before the first one is written.

A plan is made from headers and ``config.json`` alone and is pure data: for each output tensor its name, dtype, shape,
sources, transform, file and place in that file. ``--dry-run`` prints it and ``execute`` runs it, in any order and in
parallel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msport.architectures import Architecture, Dropped, get_architecture, read_config
from msport.checkpoint import Layout, ckpt, fp8, safetensors
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.checkpoint.quoting import quote
from msport.convert.matching import Match, is_packed, match
from msport.convert.passthrough import kept_files, kept_layout
from msport.convert.sharding import cut, shard_names
from msport.convert.sizes import parse_size
from msport.convert.tensors import Catalog, OutputTensor, SourceTensor
from msport.errors import CheckpointError, UnsupportedError, UsageError

# MXFP4 packs the experts; everything else in such a model is bfloat16.
DTYPES = {"bfloat16": BFLOAT16, "float16": FLOAT16, "float32": FLOAT32, "mxfp4": BFLOAT16}
FORMATS = {"safetensors": safetensors.plan_layout, "ckpt": ckpt.plan_layout}
MAX_SHARD_SIZE = "5GB"

_FP8_BLOCK = [fp8.BLOCK, fp8.BLOCK]


@dataclass(frozen=True, slots=True)
class Shard:
    """A file to write; `layout` holds all of it except the tensors' bytes.

    With `source` the file is the source's file of that name, byte for byte.
    """

    file: str
    layout: Layout
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole conversion: `tensors` in the order in which they lie in `shards`, and the sources left out on purpose."""

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


def make_plan(
    catalog: Catalog,
    *,
    dtype: str = "bfloat16",
    format: str = "safetensors",  # noqa: A002  the contract's name
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> Plan:
    """The plan that converts the checkpoint `catalog` to `dtype` and `format`; reads ``config.json`` and nothing else.

    Floating tensors become `dtype`; integers are never cast. With ``mxfp4`` packed experts stay as the Hub has them
    and the rest becomes bfloat16. A shard holds at most `max_shard_size` bytes of tensors, or one larger tensor. Of a
    model in which nothing changes, safetensors files on disk are kept as they are.

    Raises CheckpointError with all missing, unexpected, misshapen and wrongly typed tensors together, ConfigError,
    UnsupportedError, and UsageError for an unknown `dtype` or `format`.
    """
    _check_choice("dtype", dtype, DTYPES)
    _check_choice("format", format, FORMATS)
    architecture, matches, dropped = match_checkpoint(catalog)
    outputs = [output for found in matches for output in _outputs(found, dtype, catalog)]
    if dtype == "mxfp4" and not any(is_packed(found.recipe) for found in matches):
        raise UsageError(f"{catalog.folder}: holds no MXFP4 tensors to keep; choose bfloat16, float16 or float32")
    tensors, shards = _place(outputs, format, parse_size(max_shard_size), catalog)
    return Plan(architecture.name, dtype, format, tensors, shards, tuple(dropped))


def match_checkpoint(catalog: Catalog) -> tuple[Architecture, list[Match], list[Dropped]]:
    """The architecture of a checkpoint, a recipe for each of its parameters, and the tensors it does not need.

    Raises ConfigError, UnsupportedError, and CheckpointError with everything that does not fit.
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
        yield OutputTensor(found.weight.name, DTYPES[dtype], found.weight.shape, found.recipe.transform, sources)


def _source(name: str, catalog: Catalog) -> SourceTensor:
    tensor = catalog.tensors[name]
    return SourceTensor(name, tensor.dtype, tensor.shape, catalog.files[name].name)


def _place(
    outputs: Sequence[OutputTensor], file_format: str, max_shard_size: int, catalog: Catalog
) -> tuple[tuple[OutputTensor, ...], tuple[Shard, ...]]:
    """`outputs` in shards, each with its place: first the source's files that can be kept, then the rest in order."""
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
