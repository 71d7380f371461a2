"""A record of what an unfinished conversion has written, so that the next run can resume it.

A journal is a sequence of lines. Each holds the CRC32 of its rest, in hex, and a JSON array. The first line describes
the conversion. The others are appended during the work; each claims that

- ``["written", tensor, end]``: the first `end` bytes of tensor number `tensor` are written,
- ``["hashed", tensor, sha256]``: all of the tensor is written, and this is its hash,
- ``["closed", shard]``: shard number `shard` is complete and on disk,
- ``["mark"]`` and later ``["synced"]``: everything claimed before the last mark is on disk.

A claim is appended only after it is true, so no claim becomes false if lines at the end are lost. If the process was
killed, all claims count, because the kernel keeps what was written. If the machine went down, only synced and closed
claims count, because other data may not be on disk. The kernel's boot id distinguishes the two cases.
"""

from __future__ import annotations

import errno
import json
import os
import re
import threading
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msport.checkpoint import strict_json, write_atomically
from msport.checkpoint.atomic import naming_the_file
from msport.checkpoint.regular_files import open_regular

VERSION = 1

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_LINE = 1 << 22
_CRC_DIGITS = 8


@dataclass(slots=True)
class Done:
    """What is done: bytes at the beginning of tensors, SHA-256 of whole tensors, and whole shards, by number."""

    written: dict[int, int] = field(default_factory=dict)
    hashes: dict[int, str] = field(default_factory=dict)
    shards: set[int] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.written or self.hashes or self.shards)

    def add(self, other: Done) -> None:
        """Add everything that is done in `other`, which is later."""
        self.written |= other.written
        self.hashes |= other.hashes
        self.shards |= other.shards


@dataclass(frozen=True, slots=True)
class Replay:
    """A journal read back: `fingerprint` describes the conversion, the other field what is done."""

    fingerprint: dict[str, Any]
    done: Done


class Journal:
    """A journal being written. Each method appends one claim immediately and may be called from any thread.

    The journal begins as a new file that claims what is in `done`, which must be on disk. It is `empty` until something
    is claimed. Every OSError has the file's name.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any], done: Done) -> None:
        self.path = path
        self.done = done
        self.empty = not done
        self._lock = threading.Lock()
        lines = [["journal", VERSION, boot_id(), fingerprint], *_claims(done), ["mark"], ["synced"]]
        write_atomically(path, b"".join(map(_line, lines)))
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)

    def written(self, tensor: int, end: int) -> None:
        """The first `end` bytes of tensor number `tensor` have been written."""
        self.empty = False
        self._append(["written", tensor, end])

    def hashed(self, tensor: int, sha256: str) -> None:
        """All of tensor number `tensor` has been written."""
        self._append(["hashed", tensor, sha256])

    def closed(self, shard: int) -> None:
        """Shard number `shard` is complete and on disk."""
        self._append(["closed", shard])

    def mark(self) -> None:
        """Everything claimed so far is about to be made durable."""
        self._append(["mark"])

    def synced(self) -> None:
        """Everything claimed before the last mark is on disk; makes the journal durable too."""
        self._append(["synced"])
        with naming_the_file(self.path):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, claim: list[Any]) -> None:
        line = _line(claim)
        with self._lock, naming_the_file(self.path):
            count = os.write(self._descriptor, line)
            if count != len(line):  # the disk is full, and the next call reports it
                os.write(self._descriptor, line[count:])


def read_journal(path: Path) -> Replay | None:
    """The journal at `path`. None if there is none, if it is a symbolic link, or if its first line is damaged.

    Raises OSError if it cannot be read, and CheckpointError if it is no regular file.
    """
    try:
        descriptor = open_regular(path, os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None
        raise
    with open(descriptor, "rb") as file:
        return replay(iter(lambda: file.readline(_MAX_LINE), b""), boot_id())


def replay(lines: Iterable[bytes], boot: str | None) -> Replay | None:
    """The journal in `lines`, read on a machine whose boot id is `boot`; see `read_journal`.

    The first incomplete, damaged or unknown line ends the journal. So work may be repeated but is never assumed. Memory
    grows with the number of tensors, not of lines.
    """
    claims = _parse(lines)
    head = next(claims, None)
    if head is None or len(head) != 4 or head[:2] != ["journal", VERSION] or not isinstance(head[3], dict):
        return None
    synced, marked, recent = Done(), Done(), Done()
    for claim in claims:
        if not _is_known(claim):
            break
        kind, *values = claim
        if kind == "written":
            recent.written[values[0]] = values[1]
        elif kind == "hashed":
            recent.hashes[values[0]] = values[1]
        elif kind == "closed":
            synced.shards.add(values[0])
        elif kind == "mark":
            marked.add(recent)
            recent = Done()
        else:
            synced.add(marked)
            marked = Done()
    if boot is not None and head[2] == boot:
        synced.add(marked)
        synced.add(recent)
    return Replay(head[3], synced)


def boot_id() -> str | None:
    """An id that changes when the machine restarts; None if the system has none."""
    try:
        return _BOOT_ID.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _claims(done: Done) -> Iterator[list[Any]]:
    yield from (["written", tensor, end] for tensor, end in done.written.items())
    yield from (["hashed", tensor, sha256] for tensor, sha256 in done.hashes.items())
    yield from (["closed", shard] for shard in sorted(done.shards))


def _line(claim: list[Any]) -> bytes:
    text = json.dumps(claim, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _parse(lines: Iterable[bytes]) -> Iterator[list[Any]]:
    """The arrays of `lines` up to the first incomplete or damaged line."""
    for line in lines:
        text = line[_CRC_DIGITS + 1 : -1]
        if line != b"%08x %s\n" % (zlib.crc32(text), text):
            return
        try:
            claim = strict_json.parse(text)
        except ValueError:
            return
        if not isinstance(claim, list):
            return
        yield claim


def _is_known(claim: list[Any]) -> bool:
    kind, *values = claim or [None]
    if kind in ("mark", "synced"):
        return not values
    if kind == "closed":
        return len(values) == 1 and _is_natural(values[0])
    if kind == "written":
        return len(values) == 2 and all(map(_is_natural, values))
    return kind == "hashed" and len(values) == 2 and _is_natural(values[0]) and _is_hash(values[1])


def _is_natural(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None
