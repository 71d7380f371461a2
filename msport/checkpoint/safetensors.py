"""The safetensors format: a complete check of the header, and the layout of new files.

A file is ``u64 N`` (little-endian), ``N`` bytes of JSON, then the tensors' bytes without gaps or overlaps. Source:
https://github.com/huggingface/safetensors (README, section Format; ``safetensors/src/tensor.rs``).

msport refuses some files that the ``safetensors`` library accepts. No known program writes them: white space before the
header or padding other than spaces after it, a repeated name, an entry with more keys or written as an array, a dtype
written as an object, ``"__metadata__": null``, the dtypes C64, F4, F6_* and F8_*FNUZ, and shapes that NumPy cannot hold
(rank above 32, or empty with other dimensions beyond 2**63 bytes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from msport.checkpoint import strict_json
from msport.checkpoint.dtypes import DType, by_safetensors
from msport.checkpoint.layout import Header, Layout, TensorInfo, nbytes_of, version_on_disk
from msport.checkpoint.regular_files import open_regular
from msport.errors import CheckpointError, quote

PREFIX = 8  # bytes that hold the header's length
_MAX_HEADER = 100_000_000
_ALIGNMENT = 8
_MAX_RANK = 32
_MAX_BYTES = 2**63 - 1
_METADATA = "__metadata__"
_ENTRY_KEYS = {"dtype", "shape", "data_offsets"}


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and completely validate the header of a safetensors file. Reads no tensor.

    Raises CheckpointError naming the file, the tensor where known, and the remedy; OSError if the file cannot be read.
    """
    path = Path(path)
    with open(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        length = header_length(path, file.read(min(PREFIX, status.st_size)), status.st_size)
        return parse_header(path, file.read(length), length, status.st_size, version_on_disk(status))


def header_length(path: Path, prefix: bytes, file_size: int) -> int:
    """Number of bytes of JSON after the first ``PREFIX`` bytes of a file. Raises CheckpointError if the file is too
    short.
    """
    if len(prefix) < PREFIX:
        _refuse(path, f"{file_size} bytes are too few for a safetensors file")
    length = int.from_bytes(prefix, "little")
    if length > _MAX_HEADER:
        _refuse(path, f"not a safetensors file: its header would be {length} bytes (at most {_MAX_HEADER})")
    if PREFIX + length > file_size:
        _refuse(path, f"truncated: the header ends at byte {PREFIX + length}, the file at {file_size}")
    return length


def parse_header(path: Path, text: bytes, length: int, file_size: int, version: str) -> Header:
    """The header with the JSON ``text`` of ``length`` bytes. Raises CheckpointError as ``read_header``."""
    document = _parse(path, text, length)
    metadata = _metadata(path, document.pop(_METADATA, {}))
    data_start = PREFIX + length
    tensors = [_tensor(path, name, entry, data_start) for name, entry in document.items()]
    tensors.sort(key=lambda tensor: tensor.extents)
    _check_contiguous(path, tensors, data_start, file_size)
    return Header(path, {tensor.name: tensor for tensor in tensors}, metadata, data_start, file_size, version)


def plan_layout(
    tensors: Iterable[tuple[str, DType, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> Layout:
    """Lay out a safetensors file that holds ``tensors`` (name, dtype, shape).

    They are in the given order, except that wider dtypes come first, so that each is aligned to its element size.
    Raises CheckpointError for a repeated or reserved name or a header beyond 100 MB.
    """
    ordered = sorted(tensors, key=lambda tensor: -tensor[1].itemsize)
    document: dict[str, Any] = {}
    if metadata:
        document[_METADATA] = dict(metadata)
    end = 0
    for name, dtype, shape in ordered:
        if name in document or name == _METADATA:
            raise CheckpointError(f"tensor {quote(name)} cannot be laid out: the name is taken; rename it")
        begin, end = end, end + nbytes_of(dtype, shape)
        document[name] = {"dtype": dtype.safetensors, "shape": list(shape), "data_offsets": [begin, end]}
    header = _encode(document)
    data_start = len(header)
    infos = {}
    for name, dtype, shape in ordered:
        begin, stop = document[name]["data_offsets"]
        infos[name] = TensorInfo(name, dtype, tuple(shape), ((data_start + begin, data_start + stop),))
    return Layout(infos, ((0, header),), data_start + end)


def _encode(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > _MAX_HEADER:
        raise CheckpointError(f"a header of {len(text)} bytes exceeds safetensors' 100 MB: use smaller shards")
    return len(text).to_bytes(PREFIX, "little") + text


def _parse(path: Path, text: bytes, length: int) -> dict[str, Any]:
    if len(text) != length:
        _refuse(path, "the file shrank while its header was read")
    if not text.startswith(b"{"):
        _refuse(path, "the header does not start with '{'")
    if not text.rstrip(b" ").endswith(b"}"):
        _refuse(path, "the header is not a JSON object padded with spaces")
    try:
        document = strict_json.parse(text)
    except ValueError as error:
        _refuse(path, f"invalid header: {error}")
    return dict(document)


def _metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        _refuse(path, f"{_METADATA} is not a map from strings to strings")
    return dict(metadata)


def _tensor(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict) or entry.keys() != _ENTRY_KEYS:
        _refuse(path, f"tensor {quote(name)}: its entry is not exactly dtype, shape and data_offsets")
    dtype = by_safetensors(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise CheckpointError(
            f"{path}: tensor {quote(name)}: msport knows no dtype {quote(entry['dtype'])}; convert it first"
        )
    shape = _naturals(path, name, "shape", entry["shape"])
    offsets = _naturals(path, name, "data_offsets", entry["data_offsets"])
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        _refuse(path, f"tensor {quote(name)}: data_offsets {quote(list(offsets))} are not begin and end")
    begin, end = offsets
    if _nbytes(path, name, dtype, shape) != end - begin:
        _refuse(path, f"tensor {quote(name)}: {dtype.name} {quote(list(shape))} does not fill its {end - begin} bytes")
    return TensorInfo(name, dtype, shape, ((data_start + begin, data_start + end),))


def _naturals(path: Path, name: str, field: str, values: Any) -> tuple[int, ...]:
    numbers = strict_json.naturals(values)
    if numbers is None:
        _refuse(path, f"tensor {quote(name)}: {field} is not a list of non-negative integers")
    return numbers


def _nbytes(path: Path, name: str, dtype: DType, shape: tuple[int, ...]) -> int:
    if len(shape) > _MAX_RANK:
        _refuse(path, f"tensor {quote(name)}: {len(shape)} dimensions (at most {_MAX_RANK})")
    extent = dtype.itemsize
    for size in shape:
        extent *= size or 1
    if extent > _MAX_BYTES:
        _refuse(path, f"tensor {quote(name)}: the size of shape {quote(list(shape))} overflows 64 bits")
    return 0 if 0 in shape else extent


def _check_contiguous(path: Path, tensors: list[TensorInfo], data_start: int, file_size: int) -> None:
    position = data_start
    for tensor in tensors:
        ((begin, end),) = tensor.extents
        if begin != position:
            fault = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            _refuse(path, f"tensor {quote(tensor.name)} {fault} (starts at byte {begin}, expected {position})")
        position = end
    if position != file_size:
        fault = "truncated" if position > file_size else "has bytes after its last tensor"
        _refuse(path, f"{fault}: the last tensor ends at byte {position}, the file at {file_size}")


def _refuse(path: Path, fault: str) -> NoReturn:
    raise CheckpointError(f"{path}: {fault}; download the file again")
