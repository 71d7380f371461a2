"""What a process holds in memory."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process.

    `peak_resident` is the most it ever held in memory (VmHWM). At the end it held `private`, its own, and `mapped`,
    pages of files such as mapped weights, which the system may take back. `device_peak` is the device's; None where the
    model computes in host memory. What the system does not tell is None.
    """

    peak_resident: int
    private: int | None = None
    mapped: int | None = None
    device_peak: int | None = None


def read_memory(device_peak: int | None = None) -> Memory:
    """The memory of this process."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return Memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, device_peak=device_peak)
    fields = (line.partition(":") for line in lines)
    sizes = {name: int(value.split()[0]) * 1024 for name, _, value in fields if value.endswith("kB")}
    return Memory(sizes["VmHWM"], sizes.get("RssAnon"), sizes.get("RssFile"), device_peak)
