"""How much memory this process may still take."""

from __future__ import annotations

from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that this process may still take: the machine's, or what a container's limit leaves of them."""
    free = int(psutil.virtual_memory().available)
    for limit, usage, cached, folder in (
        ("memory.max", "memory.current", "inactive_file", cgroup),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", cgroup / "memory"),
    ):
        try:
            free = min(free, _left(folder, limit, usage, cached))
        except (OSError, ValueError):  # no such controller, or no limit: "max"
            continue
    return free


def _left(folder: Path, limit: str, usage: str, cached: str) -> int:
    """What the control group in `folder` leaves; files that it has cached count as free, for they give way."""
    allowed, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, usage))
    stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    return max(0, allowed - used + int(stat.get(cached, 0)))
