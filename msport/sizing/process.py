"""The memory of a process."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory in bytes of a device with its own memory.

    `allocated_peak` and `reserved_peak` are the peaks of MindSpore's pool. The others are the values of ``npu-smi`` at
    the end, or None if unknown: `total` of the card, `used` by all processes (with an accuracy of a hundredth of the
    total), and `process` by this process.
    """

    allocated_peak: int
    reserved_peak: int
    total: int | None = None
    used: int | None = None
    process: int | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of one process in bytes.

    `peak_resident` is its peak resident memory (VmHWM). `private` is its current private memory, and `mapped` its file
    pages, such as memory-mapped weights, which the system can reclaim. `device` is None if the model computes in host
    memory. Unknown values are None.
    """

    peak_resident: int
    private: int | None = None
    mapped: int | None = None
    device: DeviceMemory | None = None

    @property
    def resident(self) -> int:
        """The current resident memory; the peak if unknown."""
        return self.peak_resident if self.private is None or self.mapped is None else self.private + self.mapped


def read_memory(device: DeviceMemory | None = None, status: Path = _STATUS) -> Memory:
    """The memory of this process, from the file `status` if the system has it."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return Memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, device=device)
    fields = (line.partition(":") for line in lines)
    sizes = {name: int(value.split()[0]) * 1024 for name, _, value in fields if value.endswith("kB")}
    # Not `ru_maxrss`, which starts at the parent's value, even after exec.
    return Memory(sizes["VmHWM"], sizes.get("RssAnon"), sizes.get("RssFile"), device)


def peak_memory() -> int:
    """The peak memory of this process in bytes."""
    return read_memory().peak_resident
