"""Reading tensors, or ranges of their rows, out of one checkpoint file."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint import ckpt, safetensors
from msport.checkpoint.atomic import naming_the_file
from msport.checkpoint.layout import Header, TensorInfo, version_on_disk
from msport.checkpoint.regular_files import open_regular
from msport.errors import CheckpointError, quote

Array = NDArray[Any]

_READERS: dict[str, Callable[[Path], Header]] = {".safetensors": safetensors.read_header, ".ckpt": ckpt.read_header}


def read_header(path: str | os.PathLike[str]) -> Header:
    """The validated header of a ``.safetensors`` or ``.ckpt`` file; the suffix decides which.

    Raises CheckpointError if the file is malformed or of another kind, or is missing.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise CheckpointError(f"{path}: not a checkpoint file; expected {' or '.join(_READERS)}")
    try:
        return _READERS[path.suffix](path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; download it") from error


class TensorFile:
    """A checkpoint file open for reading; safe to use from several threads.

    ``header`` is read and validated on opening unless given, in which case the file must not have changed since.
    """

    def __init__(self, path: str | os.PathLike[str], header: Header | None = None) -> None:
        self.path = Path(path)
        self.header = header or read_header(self.path)
        self._map: mmap.mmap | None = None
        self._descriptor = -1
        try:
            self._descriptor = open_regular(self.path)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.path}: vanished after its header was read; start again") from error
        if version_on_disk(os.fstat(self._descriptor)) != self.header.version:
            self.close()
            raise CheckpointError(f"{self.path}: changed after its header was read; start again")

    def read(self, name: str, begin: int = 0, end: int | None = None, out: Array | None = None) -> Array:
        """Read rows ``[begin, end)`` of the first axis, or the whole tensor, in storage form.

        The bytes go straight into ``out`` (C-contiguous, of the result's dtype and shape) or into a fresh array. The
        file is not memory-mapped, because a mapped page would count as resident memory. Raises CheckpointError if the
        tensor or the bytes are missing.
        """
        tensor = self._tensor(name)
        shape, offset = _rows(tensor, begin, end)
        if out is None:
            out = np.empty(shape, tensor.dtype.storage)
        elif out.shape != shape or out.dtype != tensor.dtype.storage or not out.flags.c_contiguous:
            raise ValueError(f"out must be a C-contiguous {tensor.dtype.storage} array of shape {shape}")
        self.read_into(name, offset, out)
        return out

    def read_into(self, name: str, offset: int, buffer: Array) -> None:
        """Fill ``buffer`` (C-contiguous, any dtype) with the tensor's bytes from byte ``offset`` on.

        Raises CheckpointError if the file ends early, IndexError if the tensor does, OSError if the disk fails.
        """
        if not buffer.flags.c_contiguous:
            raise ValueError("only C-contiguous arrays can be filled")
        tensor = self._tensor(name)
        data = buffer.reshape(-1).view(np.uint8).data
        end = offset + len(data)
        if not 0 <= offset <= end <= tensor.nbytes:
            raise IndexError(f"bytes {offset} to {end} of tensor {quote(name)}, which has {tensor.nbytes}")
        for start, stop in tensor.locate(offset, end):
            self._fill(name, data[: stop - start], start)
            data = data[stop - start :]

    def view(self, name: str) -> Array:
        """The whole tensor as a read-only array mapped from the file, in storage form.

        It may be unaligned (in ``.ckpt`` it mostly is) and stays valid after ``close``. Raises CheckpointError for a
        tensor that a ``.ckpt`` holds in several slices.
        """
        tensor = self._tensor(name)
        if len(tensor.extents) != 1:
            raise CheckpointError(
                f"{self.path}: tensor {quote(name)} is stored in slices and cannot be mapped; read it"
            )
        if not tensor.nbytes:
            return np.empty(tensor.shape, tensor.dtype.storage)
        if self._map is None:
            self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
        count = tensor.nbytes // tensor.dtype.itemsize
        return np.frombuffer(self._map, tensor.dtype.storage, count, tensor.extents[0][0]).reshape(tensor.shape)

    def release(self) -> None:
        """Release the memory pages that views have read. A later access reads them from the file again."""
        if self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)

    def fileno(self) -> int:
        """The open file's descriptor, for copies inside the kernel."""
        return self._descriptor

    def close(self) -> None:
        """Close the file. Arrays from ``view`` keep their mapping."""
        self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _tensor(self, name: str) -> TensorInfo:
        try:
            return self.header.tensors[name]
        except KeyError:
            raise CheckpointError(f"{self.path}: holds no tensor {quote(name)}") from None

    def _fill(self, name: str, buffer: memoryview, offset: int) -> None:
        while buffer:
            with naming_the_file(self.path):
                count = os.preadv(self._descriptor, [buffer], offset)
            if not count:
                raise CheckpointError(
                    f"{self.path}: tensor {quote(name)} ends early: the file shrank; download it again"
                )
            buffer, offset = buffer[count:], offset + count


def _rows(tensor: TensorInfo, begin: int, end: int | None) -> tuple[tuple[int, ...], int]:
    """The shape of rows ``[begin, end)`` and their first byte within the tensor."""
    if not tensor.shape:
        if begin != 0 or end not in (None, 1):
            raise IndexError(f"tensor {quote(tensor.name)} has no rows")
        return (), 0
    rows = tensor.shape[0]
    end = rows if end is None else end
    if not 0 <= begin <= end <= rows:
        raise IndexError(f"rows {begin} to {end} of tensor {quote(tensor.name)}, which has {rows}")
    row_bytes = tensor.nbytes // rows if rows else 0
    return (end - begin, *tensor.shape[1:]), begin * row_bytes
