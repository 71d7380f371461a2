"""Writes one checkpoint file with a known layout, in any order and from several threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msport.checkpoint import kernel_copy
from msport.checkpoint.atomic import naming_the_file
from msport.checkpoint.layout import Extent, Layout

Buffer = NDArray[Any] | bytes | bytearray | memoryview

_SHRANK = "the file shrank while it was written"


class ShardWriter:
    """A checkpoint file being written.

    The file must not exist yet. It is created with its final size, so a full disk is noticed at once. ``write`` may be
    called from several threads. ``close`` first makes the tensors durable, then the bytes between them, and last the
    beginning of the file. Until then no reader accepts the file as a checkpoint, not even as a ``.ckpt``, which has no
    end mark. If the context ends with an exception, the file is only closed, and the caller decides what happens to it.
    With ``resume``, a later writer continues it; it removes the beginning first. Every OSError has the file's name.
    """

    def __init__(self, path: str | os.PathLike[str], layout: Layout, *, resume: bool = False) -> None:
        self.path = Path(path)
        self.layout = layout
        create = os.O_NOFOLLOW if resume else os.O_CREAT | os.O_EXCL
        self._descriptor = os.open(self.path, os.O_RDWR | create | os.O_CLOEXEC, 0o666)
        try:
            with naming_the_file(self.path):
                if resume:
                    self._write_literals((begin, bytes(len(literal))) for begin, literal in layout.literals[:1])
                else:
                    _reserve(self._descriptor, layout.file_size)
        except BaseException:
            self._release()
            if not resume:
                self.path.unlink(missing_ok=True)
            raise

    def write(self, name: str, offset_in_tensor: int, buffer: Buffer) -> None:
        """Write the bytes of ``buffer`` (C-contiguous) at a byte offset within tensor ``name``, across its slices."""
        data = _bytes_of(buffer)
        with naming_the_file(self.path):
            for start, stop in self._locate(name, offset_in_tensor, len(data)):
                _write_all(self._descriptor, data[: stop - start], start)
                data = data[stop - start :]

    def read_into(self, name: str, offset_in_tensor: int, buffer: NDArray[Any]) -> None:
        """Fill ``buffer`` (C-contiguous) with what has been written of tensor ``name`` from a byte offset on."""
        data = _bytes_of(buffer)
        with naming_the_file(self.path):
            for start, stop in self._locate(name, offset_in_tensor, len(data)):
                _read_all(self._descriptor, data[: stop - start], start)
                data = data[stop - start :]

    def copy_file(self, source: int) -> bool:
        """Let this file share all of its bytes with the file open as ``source``; False if the filesystem cannot."""
        with naming_the_file(self.path):
            return kernel_copy.clone(source, self._descriptor)

    def copy_range(self, source: int, name: str, offset_in_tensor: int, size: int) -> bool:
        """Copy ``size`` bytes of tensor ``name`` from the same place in the file open as ``source``, in the kernel.

        Returns False if the kernel cannot; then part of the range may have been written.
        """
        with naming_the_file(self.path):
            return all(
                kernel_copy.copy_range(source, self._descriptor, start, stop - start)
                for start, stop in self._locate(name, offset_in_tensor, size)
            )

    def close(self) -> None:
        """Finish and close the file: tensors, then descriptions, then the beginning; each is durable before the next.

        A second call does nothing.
        """
        if self._descriptor < 0:
            return
        try:
            with naming_the_file(self.path):
                os.fsync(self._descriptor)
                if os.fstat(self._descriptor).st_size != self.layout.file_size:
                    raise OSError(errno.EIO, _SHRANK)
                beginning, others = self.layout.literals[:1], self.layout.literals[1:]
                self._write_literals(others)
                if others:
                    os.fsync(self._descriptor)
                self._write_literals(beginning)
                os.fsync(self._descriptor)
        finally:
            self._release()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._release()

    def _write_literals(self, literals: Iterable[tuple[int, bytes]]) -> None:
        for offset, literal in literals:
            _write_all(self._descriptor, memoryview(literal), offset)

    def _locate(self, name: str, offset: int, size: int) -> list[Extent]:
        tensor = self.layout.tensors[name]
        if not 0 <= offset <= offset + size <= tensor.nbytes:
            raise ValueError(f"bytes {offset} to {offset + size} of tensor {name!r}, which has {tensor.nbytes}")
        return tensor.locate(offset, offset + size)

    def _release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _reserve(descriptor: int, size: int) -> None:
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:
            # Some filesystems cannot reserve blocks. There the file is sparse, and a full disk is noticed later.
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
    os.ftruncate(descriptor, size)


def _bytes_of(buffer: Buffer) -> memoryview:
    if not isinstance(buffer, np.ndarray):
        return memoryview(buffer).cast("B")
    if not buffer.flags.c_contiguous:
        raise ValueError("only C-contiguous arrays can be written")
    return buffer.reshape(-1).view(np.uint8).data


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _read_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.preadv(descriptor, [data], offset)
        if not count:
            raise OSError(errno.EIO, _SHRANK)
        data, offset = data[count:], offset + count
