"""Memory, disk and compiler of this machine."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from msport.child import ChildError, call_in_child
from msport.doctor.check import Check, passed, warned
from msport.progress import Progress
from msport.sizing.free import free_disk
from msport.sizing.units import format_size

# Starting MindSpore and compiling a graph need almost a gigabyte before any weight is loaded.
LITTLE_MEMORY = 2 * 10**9
LITTLE_DISK = 10**9


def check_memory(available: int) -> Check:
    """Checks the free memory, `available` bytes."""
    finding = f"{format_size(available)} free"
    if available < LITTLE_MEMORY:
        return warned("memory", finding, "end other programs, or raise the container's limit")
    return passed("memory", finding)


def check_disk(folder: Path) -> Check:
    """Checks the free disk space of `folder`."""
    free = free_disk(folder)
    finding = f"{format_size(free)} free in {folder.resolve()}"
    if free < LITTLE_DISK:
        return warned("disk", finding, "free space, or work in another folder")
    return passed("disk", finding)


def compile_kernels(*, progress: Progress) -> str | None:
    """The path of the compiled CPU kernels, after loading them once; None without them. Runs in a child process."""
    from msport.native import library

    path = library()
    if path is not None:
        ctypes.CDLL(str(path))
    return None if path is None else str(path)


def check_compiler(timeout: float) -> Check:
    """Compiles msport's C++ kernels, if not yet done, and loads them."""
    name, remedy = "C++ kernels", "install g++ (or name a compiler by CXX) to speed up the CPU"
    if os.environ.get("MSPORT_NATIVE") == "0":
        return warned(name, "disabled by MSPORT_NATIVE=0", "unset MSPORT_NATIVE to speed up the CPU")
    log: list[str] = []
    try:
        path = call_in_child(
            "msport.doctor.machine:compile_kernels", {}, task="compiling them", timeout=timeout, log=log
        )
    except ChildError as error:
        return warned(name, str(error), remedy)
    if path is None:
        reason = next(reversed(log[0].strip().splitlines()), "no reason given")
        return warned(name, reason, remedy)
    return passed(name, str(path))
