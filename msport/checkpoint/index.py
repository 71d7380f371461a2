"""A checkpoint as a folder: one file, or shards and the index that says which tensor is in which shard.

The first of these is used: ``model.safetensors.index.json`` (the Hub's index), ``param_name_map.json`` (MindSpore's
name for the same map), ``model.safetensors``, ``model.ckpt``. ``original/``, ``metal/`` and
``consolidated*.safetensors``, which some Hub repositories also contain, are ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from msport.checkpoint import strict_json
from msport.checkpoint.file_pool import FilePool
from msport.checkpoint.layout import Header
from msport.checkpoint.reader import Array, read_header
from msport.errors import CheckpointError, enumerate_some, quote

INDEX_NAME = "model.safetensors.index.json"
NAME_MAP_NAME = "param_name_map.json"
SINGLE_NAMES = ("model.safetensors", "model.ckpt")

_MAX_NAME = 255  # bytes, on every common file system
_SUFFIXES = (".safetensors", ".ckpt")
_PROBLEMS_SHOWN = 8
# The largest models on a Hub have about a hundred.
_MAX_SHARDS = 10_000


class Checkpoint:
    """All tensors of a folder, read from at most ``max_open_files`` open files; safe to use from several threads.

    ``tensors`` maps each tensor's name to its TensorInfo, ``files`` maps it to its file; ``headers`` maps each file to
    its header.
    """

    def __init__(self, folder: Path, headers: dict[Path, Header], max_open_files: int) -> None:
        self.folder = folder
        self.headers = headers
        self.tensors = {name: info for header in headers.values() for name, info in header.tensors.items()}
        self.files = {name: path for path, header in headers.items() for name in header.tensors}
        self._pool = FilePool(headers, max_open_files)

    def read(self, name: str, begin: int = 0, end: int | None = None, out: Array | None = None) -> Array:
        """Rows ``[begin, end)`` of a tensor, as ``TensorFile.read``."""
        with self._pool.borrow(self._file(name)) as file:
            return file.read(name, begin, end, out)

    def read_into(self, name: str, offset: int, buffer: Array) -> None:
        """Fill ``buffer`` with a tensor's bytes from ``offset`` on, as ``TensorFile.read_into``."""
        with self._pool.borrow(self._file(name)) as file:
            file.read_into(name, offset, buffer)

    def view(self, name: str) -> Array:
        """A whole tensor, memory-mapped from its file, as ``TensorFile.view``."""
        with self._pool.borrow(self._file(name)) as file:
            return file.view(name)

    def release(self) -> None:
        """Release the memory pages that views have read, as ``TensorFile.release``."""
        self._pool.release()

    def abandon(self) -> None:
        """Does nothing, because no read from a file takes long; a checkpoint read over a network ends its reads."""

    def close(self) -> None:
        """Close every file."""
        self._pool.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _file(self, name: str) -> Path:
        if name not in self.files:
            raise CheckpointError(f"{self.folder}: holds no tensor {quote(name)}")
        return self.files[name]


def open_checkpoint(folder: str | os.PathLike[str], max_open_files: int = 16) -> Checkpoint:
    """Open a checkpoint folder after checking every header, and the index against the shards in both directions.

    Raises CheckpointError naming the file and the remedy; all disagreements between index and shards are reported
    together.
    """
    folder = Path(folder)
    return Checkpoint(folder, read_headers(folder), max_open_files)


def read_headers(
    folder: Path, read: Callable[[Path], Header] = read_header, exists: Callable[[Path], bool] = Path.is_file
) -> dict[Path, Header]:
    """The headers of a checkpoint's files, checked as ``open_checkpoint`` says.

    ``read`` and ``exists`` access files that are not on disk; the index itself is read from ``folder``.
    """
    index = next((folder / name for name in (INDEX_NAME, NAME_MAP_NAME) if (folder / name).is_file()), None)
    return _open_shards(index, read, exists) if index else _open_single(folder, read, exists)


def index_document(weight_map: Mapping[str, str], total_size: int) -> str:
    """The text of both index files: ``weight_map`` maps each tensor to its file, and ``total_size`` is the number
    of bytes of all tensors.
    """
    document = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def read_weight_map(path: Path) -> dict[str, str]:
    """The ``weight_map`` of an index file; CheckpointError if it is malformed or a shard's name leaves the folder."""
    try:
        document = strict_json.load(path)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; download it again") from error
    weight_map = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{path}: has no weight_map from tensors to file names; download it again")
    if not weight_map:
        raise CheckpointError(f"{path}: its weight_map is empty; download it again")
    shards = len(set(weight_map.values()))
    if shards > _MAX_SHARDS:
        raise CheckpointError(f"{path}: names {shards} files (at most {_MAX_SHARDS}); download it again")
    strays = sorted({name for name in weight_map.values() if not is_plain_name(name)})
    if strays:
        fault = f"names shards that are not plain file names in its folder: {_quoted(strays)}"
        raise CheckpointError(f"{path}: {fault}; download it from a source you trust")
    return weight_map


def is_plain_name(name: str) -> bool:
    """Whether ``name`` is a valid name of a checkpoint file directly in its folder, not hidden."""
    fits = name.isprintable() and len(name.encode()) <= _MAX_NAME
    return fits and name.endswith(_SUFFIXES) and not name.startswith(".") and not any(mark in name for mark in "/\\:")


def _open_single(folder: Path, read: Callable[[Path], Header], exists: Callable[[Path], bool]) -> dict[Path, Header]:
    path = next((folder / name for name in SINGLE_NAMES if exists(folder / name)), None)
    if path is None:
        raise CheckpointError(_why_nothing(folder))
    return {path: read(path)}


def _why_nothing(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; give the folder of a checkpoint"
    shards = sorted(path.name for path in folder.glob("*-of-*") if path.suffix in _SUFFIXES)
    if shards:
        return f"{folder}: holds shards ({shards[0]}, ...) but not their {INDEX_NAME}; download it"
    wanted = ", ".join((INDEX_NAME, NAME_MAP_NAME, *SINGLE_NAMES))
    return f"{folder}: holds no checkpoint (none of {wanted}); download the model's safetensors files"


def _open_shards(index: Path, read: Callable[[Path], Header], exists: Callable[[Path], bool]) -> dict[Path, Header]:
    weight_map = read_weight_map(index)
    headers: dict[Path, Header] = {}
    problems = []
    for name in sorted(set(weight_map.values())):
        try:
            headers[index.parent / name] = read(index.parent / name)
        except CheckpointError as error:
            problems.append(str(error))
    problems += _disagreements(weight_map, headers)
    problems += _unnamed_singles(index.parent, weight_map, exists)
    if problems:
        if len(problems) > _PROBLEMS_SHOWN:
            problems[_PROBLEMS_SHOWN:] = [f"and {len(problems) - _PROBLEMS_SHOWN} more problems"]
        remedy = "download the index and all shards from one revision"
        raise CheckpointError(f"{index}: index and shards disagree: {'; '.join(problems)}; {remedy}")
    return headers


def _disagreements(weight_map: dict[str, str], headers: dict[Path, Header]) -> Iterator[str]:
    seen: set[str] = set()
    for path, header in headers.items():
        expected = {name for name, shard in weight_map.items() if shard == path.name}
        twice = seen & header.tensors.keys()
        yield from _problem(path, "lacks what the index places there", expected - header.tensors.keys())
        yield from _problem(path, "holds what another shard holds too", twice)
        yield from _problem(path, "holds what the index does not place there", header.tensors.keys() - expected - twice)
        seen |= header.tensors.keys()


def _unnamed_singles(folder: Path, weight_map: dict[str, str], exists: Callable[[Path], bool]) -> Iterator[str]:
    # Transformers would load such a file and ignore the index.
    for name in SINGLE_NAMES:
        if exists(folder / name) and name not in weight_map.values():
            yield f"{name} lies beside the index, which does not name it: remove whichever is stale"


def _problem(path: Path, fault: str, names: set[str]) -> Iterator[str]:
    if names:
        yield f"{path.name} {fault}: {_quoted(sorted(names))}"


def _quoted(names: list[str]) -> str:
    return enumerate_some([quote(name) for name in names])
