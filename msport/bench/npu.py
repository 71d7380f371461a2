"""What an Ascend NPU tells of its memory: MindSpore's pool, and ``npu-smi``. Never run on an NPU by this project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

from msport.bench.memory import DeviceMemory

_MEGABYTE = 1 << 20
_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Card:
    """A card's bytes as ``npu-smi`` tells them; None where it does not."""

    total: int | None = None
    used: int | None = None
    process: int | None = None


def read_device_memory(number: int) -> DeviceMemory:
    """The memory of the NPU `number` that this process computes on, as MindSpore and ``npu-smi`` see it."""
    import mindspore as ms

    card = read_card(number, os.getpid())
    return DeviceMemory(
        int(ms.runtime.max_memory_allocated()),
        int(ms.runtime.max_memory_reserved()),
        card.total,
        card.used,
        card.process,
    )


def read_card(number: int, process: int) -> Card:
    """Asks ``npu-smi`` for card `number`, and for what `process` holds there; without the tool nothing is known."""
    usages, processes = (_ask(kind, number) for kind in ("usages", "proc-mem"))
    total, share = (_number(usages, name) for name in ("HBM Capacity(MB)", "HBM Usage Rate(%)"))
    own = re.findall(rf"Process id\s*:\s*{process}\b.*?Process memory\(MB\)\s*:\s*(\d+)", processes)
    return Card(
        None if total is None else total * _MEGABYTE,
        None if total is None or share is None else total * _MEGABYTE * share // 100,
        sum(map(int, own)) * _MEGABYTE if own else None,
    )


def _ask(kind: str, number: int) -> str:
    tool = shutil.which("npu-smi")
    if tool is None:
        return ""
    command = [tool, "info", "-t", kind, "-i", str(number)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _number(text: str, name: str) -> int | None:
    found = re.search(rf"^\s*{re.escape(name)}\s*:\s*(\d+)\s*$", text, re.MULTILINE)
    return int(found[1]) if found else None
