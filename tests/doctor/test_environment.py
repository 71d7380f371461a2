"""What a bug report must say is read from where Ascend's installers put it, and said to be missing where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from msport.doctor.check import Status
from msport.doctor.environment import describe_environment

# As npu-smi 25.5.1 prints it on a 910B3.
OVERVIEW = """\
+------------------------------------------------------------------------------------------------+
| npu-smi 25.5.1                   Version: 25.5.1                                               |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B3               | OK            | 93.1        44                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           0    / 0          3415 / 65536         |
+===========================+===============+====================================================+
"""
BOARD = """\
        NPU ID                         : 0
        Product Name                   : IT21HMDB02
        Software Version               : 25.5.1
        Firmware Version               : 7.8.0.5.216
"""


def described(root: Path, environ: dict[str, str] | None = None) -> dict[str, str]:
    checks = list(describe_environment(600, environ or {}, root))
    assert all(check.status is Status.PASS for check in checks)
    return {check.name: check.finding for check in checks}


def test_a_machine_without_ascend_gets_no_facts_about_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = described(tmp_path)
    assert set(found) == {"system", "environment"}
    assert found["environment"].startswith("none of Ascend")


def test_what_lacks_beside_a_toolkit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "usr/local/Ascend/ascend-toolkit/latest").mkdir(parents=True)
    found = described(tmp_path)
    for name in ("NPU driver", "NPU firmware", "NPU install", "CANN kernels", "npu-smi"):
        assert found[name].startswith("not installed"), name


def test_versions_are_read_from_the_installers_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    toolkit = tmp_path / "usr/local/Ascend/ascend-toolkit/latest"
    for path, text in {
        tmp_path / "etc/os-release": 'NAME="openEuler"\nPRETTY_NAME="openEuler 22.03 (LTS-SP4)"\n',
        tmp_path / "usr/local/Ascend/driver/version.info": "Version=25.5.1\nascendhal_version=7.35.23\npackage=x\n",
        toolkit / "opp_kernel/version.info": "Version=8.5.0\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = described(tmp_path)
    assert found["system"].startswith("openEuler 22.03")
    assert found["NPU driver"] == "25.5.1, 7.35.23"
    assert found["CANN kernels"] == "8.5.0"


@pytest.mark.parametrize("number", ["0", "3"])
def test_chips_memory_and_versions_come_from_npu_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    tool = tmp_path / "npu-smi"
    overview = OVERVIEW.replace("| 0     910B3", f"| {number}     910B3")
    board = f"[ \"$5\" = {number} ] && cat <<'E'\n{BOARD}E\n"
    tool.write_text(f"#!/bin/sh\nif [ \"$2\" = -t ]; then {board}else cat <<'E'\n{overview}E\nfi\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = described(tmp_path)
    assert found["npu-smi"] == "25.5.1"
    assert found["NPU chips"] == "910B3 OK"
    assert found["NPU memory"] == "3415 of 65536 MB used"
    assert "Firmware Version 7.8.0.5.216" in found[f"NPU board {number}"]


def test_the_environment_is_reported_without_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    environ = {"MSPORT_OPS": "portable", "ASCEND_HOME_PATH": "/opt/cann", "MS_TOKEN": "abc", "HOME": "/home/me"}
    told = described(tmp_path, environ)["environment"]
    assert told == "ASCEND_HOME_PATH=/opt/cann MSPORT_OPS=portable MS_TOKEN=(hidden)"
