"""MindSpore's ``.ckpt`` format: a complete check of its structure, and the layout of new files.

A file is a sequence of protobuf messages without a header (``checkpoint.proto`` and ``train/serialization.py`` of
MindSpore 2.10)::

    Checkpoint  { repeated Value value = 1; }
    Value       { required string tag = 1; TensorProto tensor = 2; MapTensorProto maptensor = 3; }
    TensorProto { repeated int64 dims = 1; required string tensor_type = 2; required bytes tensor_content = 3; }

A large tensor is split into slices. Each slice is an entry with the full tag and dims; the loader joins consecutive
entries of one tag. Dims of a scalar are absent or ``[0]``. An entry of type ``str`` holds a Python string as UTF-32:
msport shows it as metadata. An optional trailer is ``crc_num`` and the CRC32 of all bytes before it in 10 bytes,
big-endian. msport skips it and writes none: the manifest holds the SHA-256 of every tensor.

MindSpore's loader trusts what it reads: if a tensor is too short, it shows the memory behind it. Here every length is
checked against the file before anything is allocated. Slices of one tag that disagree or are not consecutive are
refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, NoReturn

from msport.checkpoint import protobuf
from msport.checkpoint.dtypes import DType, by_ckpt
from msport.checkpoint.layout import Extent, Header, Layout, TensorInfo, nbytes_of, version_on_disk
from msport.checkpoint.regular_files import open_regular
from msport.errors import CheckpointError, quote

# MindSpore's own writer splits larger tensors.
SLICE_BYTES = 512 * 2**20

_VALUE = 1
_TAG, _TENSOR, _MAP_TENSOR = 1, 2, 3
_DIMS, _TYPE, _CONTENT = 1, 2, 3
_STRING = "str"
_CRC_MARK = b"crc_num"
_CRC_TRAILER = len(_CRC_MARK) + 10

_MAX_TAG = 1 << 16
_MAX_TYPE = 64
_MAX_STRING = 1 << 24
_MAX_RANK = 32
_MAX_ENTRIES = 250_000
_MAX_BYTES = 2**63 - 1


@dataclass(frozen=True, slots=True)
class _Entry:
    """One Value message: a tensor or a slice of a tensor."""

    tag: str
    kind: str
    dims: tuple[int, ...]
    content: Extent


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and completely validate the structure of a ``.ckpt`` file, skipping over the tensors' bytes.

    Raises CheckpointError naming the file, the tensor where known, and the remedy; OSError if the file cannot be read.
    """
    path = Path(path)
    with open(open_regular(path), "rb") as file:
        status = os.fstat(file.fileno())
        if not status.st_size:
            _refuse(path, "holds no tensor")
        try:
            entries = list(_read_entries(path, file, _end_of_entries(file, status.st_size)))
        except ValueError as error:
            _refuse(path, f"not a MindSpore .ckpt file, or an encrypted one: {error}")
        if not entries:
            _refuse(path, "holds no tensor")
        tensors, metadata = _collect(path, file, entries)
    return Header(path, tensors, metadata, 0, status.st_size, version_on_disk(status))


def plan_layout(
    tensors: Iterable[tuple[str, DType, tuple[int, ...]]],
    metadata: Mapping[str, str] | None = None,
    slice_bytes: int = SLICE_BYTES,
) -> Layout:
    """Lay out a ``.ckpt`` file that holds ``tensors`` (name, dtype, shape) in the order given.

    A tensor above ``slice_bytes`` bytes is split; ``metadata`` becomes ``str`` entries, which
    ``mindspore.load_checkpoint`` returns as strings. Raises CheckpointError for a repeated name, and for what MindSpore
    would not load back: float8, and shape ``[0]``, which it takes for a scalar.
    """
    infos: dict[str, TensorInfo] = {}
    literals: list[tuple[int, bytes]] = []
    position = 0
    for name, text in (metadata or {}).items():
        literal = _encode_string(name, text)
        literals.append((position, literal))
        position += len(literal)
    for name, dtype, shape in tensors:
        if name in infos or name in (metadata or {}):
            raise CheckpointError(f"tensor {quote(name)} cannot be laid out: the name is taken; rename it")
        kind = _loadable_kind(name, dtype, shape)
        extents = []
        for length in _slice_lengths(nbytes_of(dtype, shape), slice_bytes):
            prefix = _encode_prefix(name, kind, shape, length)
            literals.append((position, prefix))
            position += len(prefix) + length
            extents.append((position - length, position))
        infos[name] = TensorInfo(name, dtype, tuple(shape), tuple(extents))
    return Layout(infos, tuple(literals), position)


def _slice_lengths(nbytes: int, slice_bytes: int) -> Iterator[int]:
    if slice_bytes <= 0:
        raise ValueError(f"slice_bytes must be positive, got {slice_bytes}")
    # An empty tensor still needs an entry; MindSpore's own writer loses it.
    yield min(nbytes, slice_bytes)
    for begin in range(slice_bytes, nbytes, slice_bytes):
        yield min(nbytes - begin, slice_bytes)


def _loadable_kind(name: str, dtype: DType, shape: tuple[int, ...]) -> str:
    if dtype.ckpt is None:
        raise CheckpointError(
            f"tensor {quote(name)}: MindSpore loads no {dtype.name} from .ckpt; use format safetensors"
        )
    if tuple(shape) == (0,):
        raise CheckpointError(
            f"tensor {quote(name)}: MindSpore reads shape [0] in .ckpt as a scalar; use format safetensors"
        )
    return dtype.ckpt


def _encode_prefix(tag: str, kind: str, dims: tuple[int, ...], length: int) -> bytes:
    """All of a Value before its ``length`` bytes of content, which come last."""
    description = b"".join(protobuf.encode_key(_DIMS, protobuf.VARINT) + protobuf.encode_varint(dim) for dim in dims)
    description += protobuf.encode_bytes(_TYPE, kind.encode()) + protobuf.encode_length(_CONTENT, length)
    value = protobuf.encode_bytes(_TAG, tag.encode())
    value += protobuf.encode_length(_TENSOR, len(description) + length) + description
    return protobuf.encode_length(_VALUE, len(value) + length) + value


def _encode_string(tag: str, text: str) -> bytes:
    # MindSpore stores strings through NumPy, which gives the empty string one character.
    content = (text or "\0").encode("utf-32-le")
    return _encode_prefix(tag, _STRING, (0,), len(content)) + content


def _end_of_entries(file: BinaryIO, file_size: int) -> int:
    """The byte at which the entries end: before the trailer if there is one."""
    begin = max(file_size - _CRC_TRAILER, 0)
    file.seek(begin)
    return begin if file.read(len(_CRC_MARK)) == _CRC_MARK else file_size


def _read_entries(path: Path, file: BinaryIO, end: int) -> Iterator[_Entry]:
    for count, field in enumerate(protobuf.read_fields(file, 0, end)):
        if field.number != _VALUE or field.wire_type != protobuf.LENGTH:
            raise ValueError(f"no tensor at byte {field.begin}")
        if count == _MAX_ENTRIES:
            raise ValueError(f"more than {_MAX_ENTRIES} entries")
        yield _read_value(path, file, field)


def _read_value(path: Path, file: BinaryIO, value: protobuf.Field) -> _Entry:
    fields = protobuf.read_message(file, value, max_fields=2)
    tag = protobuf.read_bytes(file, protobuf.only(fields, _TAG), _MAX_TAG).decode("utf-8")
    if any(field.number == _MAP_TENSOR for field in fields):
        raise CheckpointError(
            f"{path}: {quote(tag)} is a MapParameter, which msport does not read; save it as a Tensor"
        )
    tensor = protobuf.read_message(file, protobuf.only(fields, _TENSOR), max_fields=_MAX_RANK + 2)
    kind = protobuf.read_bytes(file, protobuf.only(tensor, _TYPE), _MAX_TYPE).decode("utf-8")
    content = protobuf.only(tensor, _CONTENT)
    return _Entry(tag, kind, _read_dims(file, tensor), (content.begin, content.end))


def _read_dims(file: BinaryIO, tensor: list[protobuf.Field]) -> tuple[int, ...]:
    dims: list[int] = []
    for field in tensor:
        if field.number != _DIMS:
            continue
        if field.wire_type == protobuf.VARINT:
            dims.append(field.value)
        elif field.wire_type == protobuf.LENGTH:  # the packed form, which MindSpore reads but does not write
            dims.extend(protobuf.read_packed(file, field, max_values=_MAX_RANK))
        else:
            raise ValueError(f"dims at byte {field.begin} are not integers")
    if len(dims) > _MAX_RANK or max(dims, default=0) > _MAX_BYTES:
        raise ValueError(f"dims of {len(dims)} dimensions up to {max(dims)} are out of range")
    return tuple(dims)


def _collect(path: Path, file: BinaryIO, entries: list[_Entry]) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] = {}
    for tag, neighbours in groupby(entries, key=lambda entry: entry.tag):
        slices = list(neighbours)
        if tag in tensors or tag in metadata:
            _refuse(path, f"tensor {quote(tag)} appears twice")
        if slices[0].kind == _STRING:
            metadata[tag] = _read_string(path, file, slices)
        else:
            tensors[tag] = _join(path, slices)
    return tensors, metadata


def _join(path: Path, slices: list[_Entry]) -> TensorInfo:
    first = slices[0]
    dtype = by_ckpt(first.kind)
    if dtype is None:
        raise CheckpointError(
            f"{path}: tensor {quote(first.tag)}: msport knows no type {quote(first.kind)}; convert it first"
        )
    if any((entry.kind, entry.dims) != (first.kind, first.dims) for entry in slices):
        _refuse(path, f"tensor {quote(first.tag)}: its slices disagree in type or dims")
    length = sum(end - begin for begin, end in (entry.content for entry in slices))
    shape = () if first.dims == (0,) and length == dtype.itemsize else first.dims
    if length != math.prod(shape) * dtype.itemsize:
        _refuse(path, f"tensor {quote(first.tag)}: {dtype.name} {quote(list(shape))} does not fill its {length} bytes")
    if dtype.itemsize * math.prod(size or 1 for size in shape) > _MAX_BYTES:
        _refuse(path, f"tensor {quote(first.tag)}: the size of shape {quote(list(shape))} overflows 64 bits")
    extents = tuple(entry.content for entry in slices if entry.content[0] < entry.content[1])
    return TensorInfo(first.tag, dtype, shape, extents or (first.content,))


def _read_string(path: Path, file: BinaryIO, slices: list[_Entry]) -> str:
    tag, (begin, end) = slices[0].tag, slices[0].content
    if len(slices) > 1 or end - begin > _MAX_STRING:
        _refuse(path, f"string {quote(tag)} appears twice or is longer than {_MAX_STRING} bytes")
    file.seek(begin)
    try:
        return file.read(end - begin).decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError:
        _refuse(path, f"string {quote(tag)} is not UTF-32")


def _refuse(path: Path, fault: str) -> NoReturn:
    raise CheckpointError(f"{path}: {fault}; download the file again or save it again")
