"""What a checkpoint file holds, and where: Header for an existing file, Layout for a file to be written."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from msport.checkpoint.dtypes import DType

Extent = tuple[int, int]


def nbytes_of(dtype: DType, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor's data."""
    return math.prod(shape) * dtype.itemsize


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's dtype, shape and place in its file.

    ``extents`` are the absolute byte ranges ``(begin, end)`` that hold it, in order: one in safetensors, several if
    ``.ckpt`` splits a large tensor into slices.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    extents: tuple[Extent, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of data, over all extents."""
        return nbytes_of(self.dtype, self.shape)

    def locate(self, begin: int, end: int) -> list[Extent]:
        """The absolute byte ranges of bytes ``[begin, end)`` of the tensor."""
        ranges = []
        extent_begin = 0
        for start, stop in self.extents:
            extent_end = extent_begin + stop - start
            low, high = max(begin, extent_begin), min(end, extent_end)
            if low < high:
                ranges.append((start + low - extent_begin, start + high - extent_begin))
            extent_begin = extent_end
        return ranges


@dataclass(frozen=True, slots=True)
class Header:
    """A checkpoint file's table of contents.

    ``tensors`` is in order of offset. ``data_start`` is the byte at which the tensors begin in safetensors; in
    ``.ckpt``, where descriptions lie between tensors, it is 0. ``version`` is text that changes when the file changes:
    size and modification time on disk, the server's identifier over the network.
    """

    path: Path
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    data_start: int
    file_size: int
    version: str


def version_on_disk(status: os.stat_result) -> str:
    """The ``Header.version`` of a file on disk."""
    return f"{status.st_size} bytes, modified {status.st_mtime_ns}"


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything of a file except the tensors' bytes, known before the first byte is written.

    ``literals`` are ``(offset, bytes)``.
    """

    tensors: dict[str, TensorInfo]
    literals: tuple[tuple[int, bytes], ...]
    file_size: int
