"""Shards: which tensors go into which file, the names of the files, and which source files are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from msport.checkpoint import Layout, TensorInfo
from msport.checkpoint.regular_files import open_regular
from msport.convert.tensors import Catalog, OutputTensor

_SUFFIX = ".safetensors"


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


def kept_files(outputs: Collection[OutputTensor], catalog: Catalog, max_nbytes: int) -> dict[Path, list[TensorInfo]]:
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


def kept_layout(path: Path, tensors: Iterable[TensorInfo]) -> Layout:
    """The layout of the file at `path`, which holds `tensors`; raises OSError if it cannot be read."""
    infos: Mapping[str, TensorInfo] = {tensor.name: tensor for tensor in tensors}
    data_start = min(tensor.extents[0][0] for tensor in infos.values())
    with open(open_regular(path), "rb") as file:
        header = file.read(data_start)
    return Layout(dict(infos), ((0, header),), max(tensor.extents[-1][1] for tensor in infos.values()))


def _is_unchanged(output: OutputTensor) -> bool:
    if output.transform != "copy":
        return False
    (source,) = output.sources
    return (source.name, source.dtype) == (output.name, output.dtype)


def _is_aligned(tensor: TensorInfo) -> bool:
    return tensor.extents[0][0] % tensor.dtype.itemsize == 0
