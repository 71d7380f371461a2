"""The processors that a benchmark runs on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from msport.errors import UsageError

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


def choose_cores(threads: int | None = None) -> tuple[int, ...]:
    """The first `threads` of the processors that this process may use (None: all). Raises `UsageError` if there are
    fewer.
    """
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
    """Bytes of the processor's largest cache; None if unknown."""
    sizes = [file.read_text(encoding="ascii").strip() for file in _CACHES.glob("index*/size")]
    return max((int(size[:-1]) * 1024 for size in sizes if size.endswith("K")), default=None)
