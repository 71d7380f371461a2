"""The memory of an Ascend NPU, from MindSpore's pool and ``npu-smi``. Never run on an NPU by this project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from msport.sizing.process import DeviceMemory

_MEGABYTE = 1 << 20
_TIMEOUT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Card:
    """A card's bytes as ``npu-smi`` tells them; None where it does not."""

    total: int | None = None
    used: int | None = None
    process: int | None = None


def read_device_memory(number: int) -> DeviceMemory:
    """The memory of the NPU that this process calls `number`, as MindSpore and ``npu-smi`` see it."""
    import mindspore as ms

    card = read_card(logic_number(number), os.getpid())
    return DeviceMemory(
        int(ms.runtime.max_memory_allocated()),
        int(ms.runtime.max_memory_reserved()),
        card.total,
        card.used,
        card.process,
    )


def logic_number(number: int, environ: Mapping[str, str] = os.environ) -> int:
    """The machine's number of the NPU that is `number` among those which ASCEND_RT_VISIBLE_DEVICES leaves visible."""
    visible = environ.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",")
    return int(visible[number]) if number < len(visible) and visible[number].strip().isdecimal() else number


def read_card(logic: int, process: int) -> Card:
    """Asks ``npu-smi`` for the chip numbered `logic`, and for what `process` holds there; None without the tool."""
    place = _place(ask_npu_smi("-m"), logic)
    usages, processes = (ask_npu_smi("-t", kind, *place) for kind in ("usages", "proc-mem"))
    total, share = (_number(usages, name) for name in ("HBM Capacity(MB)", "HBM Usage Rate(%)"))
    own = re.findall(rf"Process id\s*:\s*{process}\b.*?Process memory\(MB\)\s*:\s*(\d+)", processes)
    return Card(
        None if total is None else total * _MEGABYTE,
        None if total is None or share is None else total * _MEGABYTE * share // 100,
        sum(map(int, own)) * _MEGABYTE if own else None,
    )


def _place(table: str, logic: int) -> tuple[str, ...]:
    """The options that name a chip. A card may have two, and in a container its number is another than the chip's.

    `table` has a line of card, chip, logic number and name for each chip; without it the card is taken for the chip.
    """
    found = re.search(rf"^\s*(\d+)\s+(\d+)\s+{logic}\s", table, re.MULTILINE)
    return ("-i", found[1], "-c", found[2]) if found else ("-i", str(logic))


def ask_npu_smi(*options: str, timeout: float = _TIMEOUT_SECONDS) -> str:
    """What ``npu-smi info`` prints; nothing without the tool, or where it fails or takes over `timeout` seconds."""
    tool = shutil.which("npu-smi")
    if tool is None:
        return ""
    command = [tool, "info", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _number(text: str, name: str) -> int | None:
    found = re.search(rf"^\s*{re.escape(name)}\s*:\s*(\d+)\s*$", text, re.MULTILINE)
    return int(found[1]) if found else None
