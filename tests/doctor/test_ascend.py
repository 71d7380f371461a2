"""What of Ascend is missing or does not fit is said with the remedy; the machine is a folder made for the test."""

from __future__ import annotations

from pathlib import Path

import pytest

from msport.doctor.ascend import Ascend, check_cann, check_npus, find_ascend
from msport.doctor.check import Status


def _machine(root: Path, *, devices: int = 0, version: str | None = None) -> Path:
    """A root folder with NPU nodes, and a toolkit of this version; returns the toolkit."""
    (root / "dev").mkdir()
    for number in range(devices):
        (root / "dev" / f"davinci{number}").touch()
    (root / "dev" / "davinci_manager").touch()
    toolkit = root / "usr/local/Ascend/ascend-toolkit/latest"
    if version is not None:
        (toolkit / "compiler").mkdir(parents=True)
        (toolkit / "compiler" / "version.info").write_text(f"Version={version}\ntimestamp=20260101\n")
    return toolkit


def test_a_machine_without_an_npu_needs_no_cann(tmp_path: Path) -> None:
    _machine(tmp_path)
    ascend = find_ascend({}, tmp_path)
    assert ascend == Ascend(0, None, None, None)
    assert check_cann(ascend, "CPU").status is Status.PASS


def test_npus_without_cann_fail(tmp_path: Path) -> None:
    _machine(tmp_path, devices=8)
    check = check_cann(find_ascend({}, tmp_path), "CPU")
    assert check.status is Status.FAIL
    assert check.finding == "not found, although there are 8 NPU devices"
    assert check.remedy is not None
    assert "8.5" in check.remedy


def test_a_target_of_ascend_without_cann_fails(tmp_path: Path) -> None:
    _machine(tmp_path)
    assert check_cann(find_ascend({}, tmp_path), "Ascend").status is Status.FAIL


def test_a_home_that_does_not_exist_fails(tmp_path: Path) -> None:
    _machine(tmp_path, devices=1, version="8.5.0")
    check = check_cann(find_ascend({"ASCEND_HOME_PATH": str(tmp_path / "gone")}, tmp_path), "Ascend")
    assert check.status is Status.FAIL
    assert "gone, which does not exist" in check.finding


def test_a_toolkit_that_was_not_sourced_fails_where_there_is_an_npu(tmp_path: Path) -> None:
    toolkit = _machine(tmp_path, devices=1, version="8.5.0")
    check = check_cann(find_ascend({}, tmp_path), "CPU")
    assert check.status is Status.FAIL
    assert check.remedy == f"source {toolkit}/set_env.sh"


def test_a_supported_toolkit_in_the_environment_passes(tmp_path: Path) -> None:
    toolkit = _machine(tmp_path, devices=2, version="8.5.RC1")
    ascend = find_ascend({"ASCEND_HOME_PATH": str(toolkit)}, tmp_path)
    assert ascend == Ascend(2, toolkit, toolkit, "8.5.RC1")
    assert check_cann(ascend, "Ascend").status is Status.PASS


def test_a_supported_toolkit_that_mindspore_does_not_use_warns(tmp_path: Path) -> None:
    toolkit = _machine(tmp_path, devices=2, version="8.5.0")
    check = check_cann(find_ascend({"ASCEND_HOME_PATH": str(toolkit)}, tmp_path), "CPU")
    assert check.status is Status.WARN
    assert "MindSpore computes on the CPU" in check.finding


@pytest.mark.parametrize("version", ["8.0.0", "7.3.0", "10.0.0", "nonsense"])
def test_another_version_warns_with_those_that_are_supported(tmp_path: Path, version: str) -> None:
    toolkit = _machine(tmp_path, devices=1, version=version)
    check = check_cann(find_ascend({"ASCEND_HOME_PATH": str(toolkit)}, tmp_path), "Ascend")
    assert check.status is Status.WARN
    assert check.remedy is not None
    assert "8.2, 8.3, 8.5" in check.remedy


def _npu_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "npu-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_npu_smi_counts_the_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npu_smi(tmp_path, "echo '        Total Count                    : 8'", monkeypatch)
    check = check_npus(Ascend(8, None, None, None), timeout=600)
    assert (check.status, check.finding) == (Status.PASS, "8, npu-smi answers")


def test_an_npu_smi_that_fails_or_hangs_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npu_smi(tmp_path, "echo 'dcmi module initialize failed. ret is -8005'; exit 1", monkeypatch)
    check = check_npus(Ascend(8, None, None, None), timeout=600)
    assert check.status is Status.FAIL
    assert "ret is -8005" in check.finding
    _npu_smi(tmp_path, "exec sleep 60", monkeypatch)
    assert check_npus(Ascend(8, None, None, None), timeout=0.5).status is Status.FAIL


def test_devices_without_npu_smi_warn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_npus(Ascend(1, None, None, None), timeout=1).status is Status.WARN
    assert check_npus(Ascend(0, None, None, None), timeout=1).status is Status.PASS
