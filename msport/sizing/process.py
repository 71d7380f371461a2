"""What a process holds in memory."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of a device that has memory of its own.

    `allocated_peak` and `reserved_peak` are the most that MindSpore's pool gave out and held. The others are what
    ``npu-smi`` said at the end, None where it does not tell: `total` of the card, `used` by everybody on it (known to a
    hundredth of the total), `process` by this process.
    """

    allocated_peak: int
    reserved_peak: int
    total: int | None = None
    used: int | None = None
    process: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process.

    `peak_resident` is the most it ever held in memory (VmHWM). When it was asked it held `private`, its own, and
    `mapped`, pages of files such as mapped weights, which the system may take back. `device` is None where the model
    computes in host memory. What the system does not tell is None.
    """

    peak_resident: int
    private: int | None = None
    mapped: int | None = None
    device: DeviceMemory | None = None

    @property
    def resident(self) -> int:
        """What was in memory when it was asked; the peak where the system does not tell."""
        return self.peak_resident if self.private is None or self.mapped is None else self.private + self.mapped


def read_memory(device: DeviceMemory | None = None, status: Path = _STATUS) -> Memory:
    """The memory of this process, from its file `status` where the system has one."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return Memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, device=device)
    fields = (line.partition(":") for line in lines)
    sizes = {name: int(value.split()[0]) * 1024 for name, _, value in fields if value.endswith("kB")}
    # Not `ru_maxrss`, which begins at what the parent has, even after exec.
    return Memory(sizes["VmHWM"], sizes.get("RssAnon"), sizes.get("RssFile"), device)


def peak_memory() -> int:
    """The most bytes that this process ever held."""
    return read_memory().peak_resident
