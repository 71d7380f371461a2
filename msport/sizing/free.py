"""The memory and disk that this process may still use."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil


@dataclass(frozen=True, slots=True)
class _Hierarchy:
    """A tree of Linux control groups below `mount`, and the files with the limit and the usage of a group.

    `inherited` and `cached` name lines of ``memory.stat``: the smallest limit of the group and all groups above it, and
    the bytes of cached files that can be reclaimed.
    """

    mount: str
    limits: tuple[str, ...]
    usage: str
    inherited: str
    cached: str


_VERSION_1 = _Hierarchy(
    "sys/fs/cgroup/memory",
    ("memory.limit_in_bytes",),
    "memory.usage_in_bytes",
    "hierarchical_memory_limit",
    "total_inactive_file",
)
_VERSION_2 = _Hierarchy("sys/fs/cgroup", ("memory.max", "memory.high"), "memory.current", "", "inactive_file")


def available_memory(root: Path = Path("/"), machine: int | None = None) -> int:
    """Bytes of memory that this process may still use: the machine's, or fewer if a control group limits them.

    The limits of all visible groups above the process's own group count too. `root` is the folder of ``proc`` and
    ``sys``. `machine` is the number of bytes available on the machine (None: measure it).
    """
    free = int(psutil.virtual_memory().available) if machine is None else machine
    for hierarchy, path in _memberships(root):
        for group in _with_ancestors(root / hierarchy.mount, path):
            free = min(free, _left(group, hierarchy, free))
    return max(0, free)


def free_disk(folder: Path) -> int:
    """Free bytes on the disk of `folder`, which may not exist yet."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def _memberships(root: Path) -> Iterator[tuple[_Hierarchy, str]]:
    """Each hierarchy that may limit memory, and the path of this process's group in it; the root group if unknown."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = ["1:memory:/", "0::/"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield _VERSION_2, path
        elif "memory" in controllers.split(","):
            yield _VERSION_1, path


def _with_ancestors(mount: Path, path: str) -> Iterator[Path]:
    """The folders of the group `path` and of the groups above it.

    In a container, the first parts of `path` may be groups outside the container that do not exist here; `mount` is
    then the last of them.
    """
    parts = [part for part in PurePosixPath(path).parts[1:] if part != ".."]
    known = next((parts[skip:] for skip in range(len(parts)) if mount.joinpath(*parts[skip:]).is_dir()), [])
    for depth in range(len(known), -1, -1):
        yield mount.joinpath(*known[:depth])


def _left(group: Path, hierarchy: _Hierarchy, unlimited: int) -> int:
    """Bytes that the limits of `group` leave; `unlimited` if there is no limit or it is unknown."""
    try:
        used = int(_read(group / hierarchy.usage))
        stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
        limits = [_read(group / name).strip() for name in hierarchy.limits if (group / name).exists()]
        allowed = [int(limit) for limit in (*limits, stat.get(hierarchy.inherited, "max")) if limit != "max"]
        return min(allowed) - used + int(stat.get(hierarchy.cached, 0)) if allowed else unlimited
    except (OSError, ValueError):  # the root group of version 2 has none of these files
        return unlimited


def _read(file: Path) -> str:
    return file.read_text(encoding="ascii")
