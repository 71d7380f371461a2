"""The processors and the memory that a benchmark runs on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import psutil

from msport.errors import UsageError

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CGROUP = Path("/sys/fs/cgroup")


def choose_cores(threads: int | None) -> tuple[int, ...]:
    """The first `threads` of the processors that this process may use; None: all."""
    count = os.cpu_count() or 1
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(count))
    if threads is not None and not 1 <= threads <= len(usable):
        raise UsageError(f"threads is {threads}; this process may use 1 to {len(usable)} processors")
    return tuple(usable[:threads])


def processor() -> str:
    """The name of the processor."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def last_level_cache_nbytes() -> int | None:
    """Bytes of the processor's largest cache; None where the system does not tell."""
    sizes = [file.read_text(encoding="ascii").strip() for file in _CACHES.glob("index*/size")]
    return max((int(size[:-1]) * 1024 for size in sizes if size.endswith("K")), default=None)


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
