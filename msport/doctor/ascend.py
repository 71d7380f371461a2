"""Ascend: NPU devices, CANN, and whether MindSpore can find it through the environment.

This was never run on an Ascend machine. It follows MindSpore 2.10's ``run_check/_check_version.py``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msport.doctor.check import Check, failed, passed, warned

# CANN versions that MindSpore 2.10 accepts without a warning.
SUPPORTED = ("8.2", "8.3", "8.5", "9.0", "9.1")

_TOOLKIT = Path("usr/local/Ascend/ascend-toolkit/latest")
_VERSION_FILES = ("compiler/version.info", "version.info", "toolkit/version.info", "version.cfg")
_VERSION = re.compile(r"^\s*version\s*=\s*\[?(\d+\.\d+)(\S*?)\]?\s*$", re.IGNORECASE | re.MULTILINE)
_INSTALL = f"install a CANN that MindSpore 2.10 supports ({', '.join(SUPPORTED)}), with its kernels package"


@dataclass(frozen=True, slots=True)
class Ascend:
    """The parts of Ascend on the machine: device nodes, the folder in ASCEND_HOME_PATH, the toolkit."""

    devices: int
    home: Path | None
    toolkit: Path | None
    version: str | None


def find_ascend(environ: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Ascend:
    """Inspects the environment and the files below `root`; runs nothing."""
    devices = sum(re.fullmatch(r"davinci\d+", node.name) is not None for node in (root / "dev").glob("davinci*"))
    home = Path(environ["ASCEND_HOME_PATH"]) if environ.get("ASCEND_HOME_PATH") else None
    candidates = [folder for folder in (home, root / _TOOLKIT) if folder is not None and folder.is_dir()]
    toolkit = candidates[0] if candidates else None
    return Ascend(devices, home, toolkit, None if toolkit is None else _read_version(toolkit))


def is_there(ascend: Ascend, root: Path = Path("/")) -> bool:
    """Whether any part of Ascend is on the machine, so that missing parts are reported."""
    parts = (ascend.devices, ascend.home, ascend.toolkit, shutil.which("npu-smi"), (root / "usr/local/Ascend").exists())
    return any(parts)


def check_cann(ascend: Ascend, device: str | None) -> Check:
    """Whether MindSpore can use the NPU. `device` is the device that it uses; None if unknown."""
    name = "CANN"
    if ascend.home is not None and not ascend.home.is_dir():
        remedy = "source set_env.sh of the toolkit that is installed, or unset the variable"
        return failed(name, f"ASCEND_HOME_PATH is {ascend.home}, which does not exist", remedy)
    if ascend.toolkit is None:
        return _without_toolkit(ascend, device)
    found = f"{ascend.version or 'version unknown'} in {ascend.toolkit}"
    if ascend.home is None:
        remedy = f"source {ascend.toolkit / 'set_env.sh'}"
        return (failed if ascend.devices else warned)(name, f"{found}, but ASCEND_HOME_PATH is not set", remedy)
    if ascend.version is None or not ascend.version.startswith(SUPPORTED):
        return warned(name, found, _INSTALL)
    if device == "CPU":
        return warned(
            name,
            f"{found}, but MindSpore computes on the CPU",
            "see what it misses: python -c \"import mindspore; print(mindspore.get_context('device_target'))\"",
        )
    return passed(name, found)


def check_npus(ascend: Ascend, timeout: float) -> Check:
    """Checks the devices, and whether npu-smi can access them."""
    name, tool = "NPU devices", shutil.which("npu-smi")
    if tool is None:
        if ascend.devices:
            return warned(name, f"{ascend.devices}, but no npu-smi", "install the Ascend driver, or add it to PATH")
        return passed(name, "none")
    try:
        listed = subprocess.run([tool, "info", "-l"], capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return failed(name, f"npu-smi does not answer ({error})", "check the Ascend driver: npu-smi info")
    output = " ".join((listed.stdout + listed.stderr).split())
    if listed.returncode != 0:
        return failed(name, f"npu-smi fails: {output[:120]}", "check the Ascend driver and the rights to /dev/davinci*")
    count = re.search(r"Total Count\s*:\s*(\d+)", output)
    return passed(name, f"{count[1] if count else ascend.devices}, npu-smi answers")


def _without_toolkit(ascend: Ascend, device: str | None) -> Check:
    if ascend.devices:
        return failed("CANN", f"not found, although there are {ascend.devices} NPU devices", _INSTALL)
    if device == "Ascend":
        return failed("CANN", "not found, although MindSpore is to compute on Ascend", _INSTALL)
    return passed("CANN", "not installed, and no NPU is here: the CPU computes")


def _read_version(toolkit: Path) -> str | None:
    for name in _VERSION_FILES:
        try:
            found = _VERSION.search((toolkit / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found[1] + found[2]
    return None
