"""The facts that a bug report about Ascend needs: versions, chips, memory and environment, from files and commands.

Nothing is judged here; missing parts are reported as missing. This was never run on a machine with an NPU.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from msport.bench.measure.npu import ask_npu_smi
from msport.doctor.ascend import find_ascend, is_there
from msport.doctor.check import Check, passed

# The files in which driver and firmware state their versions.
_VERSION_FILES = {
    "NPU driver": "usr/local/Ascend/driver/version.info",
    "NPU firmware": "usr/local/Ascend/firmware/version.info",
    "NPU install": "etc/ascend_install.info",
}
_KERNELS = ("opp_kernel/version.info", "opp/version.info", "opp_kernels/version.info")
_VERSION = re.compile(r"^\s*(?:\w*version|driver_install_path_param)\s*=\s*(\S+)", re.IGNORECASE | re.MULTILINE)
_BOARD = re.compile(r"^\s*(Software Version|Firmware Version|Product Name)\s*:\s*(.+?)\s*$", re.MULTILINE)
_CHIP = re.compile(r"^\|\s*(\d+)\s+(\w+)\s*\|\s*(\w+)\s*\|", re.MULTILINE)
_HBM = re.compile(r"(\d+)\s*/\s*(\d+)\s*\|\s*$", re.MULTILINE)

# Variables that affect MindSpore, CANN or msport. Their values hold no secrets.
_VARIABLES = ("ASCEND", "MS_", "MSPORT_", "GLOG_", "HCCL_", "RANK_", "DEVICE_ID", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY", re.IGNORECASE)


def describe_environment(
    timeout: float, environ: Mapping[str, str] = os.environ, root: Path = Path("/")
) -> Iterator[Check]:
    """One passed check for each fact. A command that takes more than `timeout` seconds counts as silent.

    On a machine without Ascend, its facts are left out.
    """
    yield passed("system", f"{_system(root)}, {platform.machine()}, Linux {platform.release()}")
    ascend = find_ascend(environ, root)
    if is_there(ascend, root):
        for name, path in _VERSION_FILES.items():
            yield passed(name, _versions(root / path))
        yield passed("CANN kernels", _kernels(ascend.toolkit))
        yield from _npu_smi(timeout)
    yield passed("environment", _environment(environ))


def _system(root: Path) -> str:
    try:
        text = (root / "etc/os-release").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.system()
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return name[1] if name else platform.system()


def _versions(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"not installed ({path} is missing)"
    found = _VERSION.findall(text)
    return ", ".join(dict.fromkeys(found)) if found else f"{path} names no version"


def _kernels(toolkit: Path | None) -> str:
    if toolkit is None:
        return "not installed (no CANN toolkit)"
    for name in _KERNELS:
        if (toolkit / name).is_file():
            return _versions(toolkit / name)
    return f"not installed (none of {', '.join(_KERNELS)} in {toolkit})"


def _npu_smi(timeout: float) -> Iterator[Check]:
    if shutil.which("npu-smi") is None:
        yield passed("npu-smi", "not installed, or not in PATH")
        return
    overview = ask_npu_smi(timeout=timeout)
    version = re.search(r"npu-smi\s+(\S+)", overview)
    yield passed("npu-smi", version[1] if version else "gives no version")
    chips = _CHIP.findall(overview)
    yield passed("NPU chips", ", ".join(f"{name} {health}" for _, name, health in chips) or "none listed")
    memory = [f"{used} of {total} MB used" for used, total in _HBM.findall(overview) if total != "0"]
    yield passed("NPU memory", ", ".join(memory) or "not listed")
    number = chips[0][0] if chips else "0"  # a container may have another card than the first
    board = dict(_BOARD.findall(ask_npu_smi("-t", "board", "-i", number, timeout=timeout)))
    found = ", ".join(f"{name} {value}" for name, value in board.items())
    yield passed(f"NPU board {number}", found or f"npu-smi info -t board -i {number} says nothing")


def _environment(environ: Mapping[str, str]) -> str:
    chosen = {
        name: "(hidden)" if _SECRET.search(name) else value
        for name, value in sorted(environ.items())
        if name.startswith(_VARIABLES)
    }
    return " ".join(f"{name}={value}" for name, value in chosen.items()) or "none of Ascend, MindSpore or msport is set"
