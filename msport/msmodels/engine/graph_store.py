"""Compiled graphs on disk, each in a file named by its key.

A file appears complete, by a rename, and begins with the SHA-256 of its rest, so a damaged file is never used. Any
number of processes may share a folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msport.cache_folder import cache_folder
from msport.checkpoint.atomic import write_atomically
from msport.errors import UsageError
from msport.sizing.units import parse_size

_DIGEST = 32
_SUFFIX = ".graph"
# A killed process may leave these.
_TEMPORARY = (".*.tmp", "staging-*")
_STALE_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class GraphStore:
    """Graphs in `folder`, at most `limit` bytes in total; the least recently used are removed first."""

    folder: Path
    limit: int

    def read(self, key: str) -> bytes | None:
        """The graph with the key `key`; None if there is none or its file is damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        with suppress(OSError):  # owned by another user, or on a read-only file system
            os.utime(path)
        return content[_DIGEST:]

    def write(self, key: str, graph: bytes) -> None:
        """Stores `graph` under `key`, and removes old graphs if needed. Raises OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if len(graph) + _DIGEST <= self.limit:
            write_atomically(self._path(key), hashlib.sha256(graph).digest() + graph)
        self._make_room()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"

    def _make_room(self) -> None:
        files = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):  # another process is making room too
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.limit:
                break
            path.unlink(missing_ok=True)
            total -= size
        self._remove_stale()

    def _remove_stale(self) -> None:
        for path in (path for pattern in _TEMPORARY for path in self.folder.glob(pattern)):
            with suppress(OSError):  # another process was faster
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()


def find_store() -> GraphStore | None:
    """The store according to the environment: ``MSPORT_GRAPH_CACHE`` is its folder or ``off``, ``MSPORT_CACHE_SIZE``
    its limit. None if it is off. Raises `UsageError` for an invalid size.
    """
    stated = os.environ.get("MSPORT_GRAPH_CACHE")
    if stated == "off":
        return None
    try:
        limit = parse_size(os.environ.get("MSPORT_CACHE_SIZE") or "1GB")
    except UsageError as error:
        raise UsageError(f"MSPORT_CACHE_SIZE: {error}") from None
    try:
        return GraphStore(Path(stated) if stated else cache_folder() / "graphs", limit)
    except RuntimeError:  # a user without a home folder
        return None
