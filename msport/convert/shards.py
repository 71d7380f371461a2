"""Shards: which tensors go into which file, the names of the files, and which source files are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from msport.checkpoint import Layout, TensorInfo, ckpt, safetensors
from msport.checkpoint.regular_files import open_regular
from msport.convert.tensors import Catalog, OutputTensor
from msport.convert.transforms import Copy

_SUFFIX = ".safetensors"
FORMATS = {"safetensors": safetensors.plan_layout, "ckpt": ckpt.plan_layout}


@dataclass(frozen=True, slots=True)
class Shard:
    """A file to write; `layout` describes all of it except the tensors' bytes.

    With `source`, the file is a byte-for-byte copy of the source's file of that name.
    """

    file: str
    layout: Layout
    source: str | None = None


class Sized(Protocol):
    @property
    def nbytes(self) -> int: ...


Item = TypeVar("Item", bound=Sized)


def cut(items: Iterable[Item], max_nbytes: int) -> list[list[Item]]:
    """`items` in their order, in groups of at most `max_nbytes` bytes each; a larger item gets its own group."""
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
    """Names as on the Hub: ``model.safetensors`` for a single file, else ``model-00001-of-00003.safetensors``."""
    if count == 1:
        return [f"model.{suffix}"]
    return [f"model-{number:05}-of-{count:05}.{suffix}" for number in range(1, count + 1)]


def place(
    outputs: Sequence[OutputTensor], file_format: str, max_nbytes: int, catalog: Catalog
) -> tuple[tuple[OutputTensor, ...], tuple[Shard, ...]]:
    """Places `outputs` in shards of at most `max_nbytes` bytes of tensors, or one larger tensor.

    First come the source's files that can be kept, then the others in order.
    """
    kept = _kept_files(outputs, catalog, max_nbytes) if file_format == "safetensors" else {}
    layouts: list[tuple[Layout, str | None]] = [
        (_kept_layout(path, tensors), path.name) for path, tensors in kept.items()
    ]
    names = {tensor.name for tensors in kept.values() for tensor in tensors}
    for group in cut((output for output in outputs if output.name not in names), max_nbytes):
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


def _kept_files(outputs: Collection[OutputTensor], catalog: Catalog, max_nbytes: int) -> dict[Path, list[TensorInfo]]:
    """The safetensors files on disk that can be kept if no tensor of `outputs` changes, with their tensors by offset.

    Such a file holds no dropped tensor, and at most `max_nbytes` bytes or one tensor. Each tensor is aligned, as
    loaders that memory-map need.
    """
    if not all(map(_is_unchanged, outputs)):
        return {}
    unchanged = {output.name for output in outputs}
    files: dict[Path, list[TensorInfo]] = {}
    for name, path in catalog.files.items():
        files.setdefault(path, []).append(catalog.tensors[name])
    return {
        path: sorted(tensors, key=lambda tensor: tensor.extents)
        for path, tensors in sorted(files.items())
        if path.suffix == _SUFFIX
        and all(tensor.name in unchanged and _is_aligned(tensor) for tensor in tensors)
        and (len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors) <= max_nbytes)
        and path.is_file()
    }


def _kept_layout(path: Path, tensors: Iterable[TensorInfo]) -> Layout:
    """The layout of the file at `path`, which holds `tensors`; raises OSError if it cannot be read."""
    infos: Mapping[str, TensorInfo] = {tensor.name: tensor for tensor in tensors}
    data_start = min(tensor.extents[0][0] for tensor in infos.values())
    with open(open_regular(path), "rb") as file:
        header = file.read(data_start)
    return Layout(dict(infos), ((0, header),), max(tensor.extents[-1][1] for tensor in infos.values()))


def _is_unchanged(output: OutputTensor) -> bool:
    if not isinstance(output.transform, Copy):
        return False
    (source,) = output.sources
    return (source.name, source.dtype) == (output.name, output.dtype)


def _is_aligned(tensor: TensorInfo) -> bool:
    return tensor.extents[0][0] % tensor.dtype.itemsize == 0
