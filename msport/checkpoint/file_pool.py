"""A bounded number of open checkpoint files, shared by threads."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from msport.checkpoint.layout import Header
from msport.checkpoint.reader import TensorFile


class FilePool:
    """Opens files when they are used and closes the least recently used ones, but never a file in use.

    ``headers`` are those of all files; a file that changed since its header was read raises CheckpointError when
    reopened.
    """

    def __init__(self, headers: dict[Path, Header], max_open_files: int) -> None:
        self._headers = headers
        self._max_open_files = max_open_files
        self._open: OrderedDict[Path, TensorFile] = OrderedDict()
        self._users: dict[Path, int] = dict.fromkeys(headers, 0)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def borrow(self, path: Path) -> Iterator[TensorFile]:
        """The open file; it stays open at least until the context ends."""
        with self._lock:
            file = self._open.get(path)
            if file is None:
                file = self._open[path] = TensorFile(path, self._headers[path])
            self._open.move_to_end(path)
            self._users[path] += 1
            self._evict()
        try:
            yield file
        finally:
            with self._lock:
                self._users[path] -= 1
                self._evict()

    def release(self) -> None:
        """As ``TensorFile.release``, for every open file."""
        with self._lock:
            for file in self._open.values():
                file.release()

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            while self._open:
                self._open.popitem()[1].close()

    def _evict(self) -> None:
        idle = [path for path in self._open if not self._users[path]]
        for path in idle[: max(len(self._open) - self._max_open_files, 0)]:
            self._open.pop(path).close()
