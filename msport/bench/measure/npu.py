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
    """The memory of a card in bytes according to ``npu-smi``; None if unknown."""

    total: int | None = None
    used: int | None = None
    process: int | None = None


def read_device_memory(number: int) -> DeviceMemory:
    """The memory of the NPU with this process's number `number`, according to MindSpore and ``npu-smi``."""
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
    """The machine's number of the NPU that is `number` among those visible by ASCEND_RT_VISIBLE_DEVICES."""
    visible = environ.get("ASCEND_RT_VISIBLE_DEVICES", "").split(",")
    return int(visible[number]) if number < len(visible) and visible[number].strip().isdecimal() else number


def read_card(logic: int, process: int) -> Card:
    """Asks ``npu-smi`` for the memory of the chip `logic` and of `process` there; None without the tool."""
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
    """The ``npu-smi`` options that select a chip. A card may have two chips, and in a container the numbers of card and
    chip differ.

    `table` has a line of card, chip, logic number and name for each chip; without it, the card's number is used.
    """
    found = re.search(rf"^\s*(\d+)\s+(\d+)\s+{logic}\s", table, re.MULTILINE)
    return ("-i", found[1], "-c", found[2]) if found else ("-i", str(logic))


def ask_npu_smi(*options: str, timeout: float = _TIMEOUT_SECONDS) -> str:
    """The output of ``npu-smi info``; empty without the tool, or if it fails or takes more than `timeout` seconds."""
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
