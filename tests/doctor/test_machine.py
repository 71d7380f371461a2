"""Memory, disk and compiler of a machine that lacks them."""

from __future__ import annotations

from pathlib import Path

import pytest

from msport.doctor.check import Status
from msport.doctor.machine import check_compiler, check_disk, check_memory


def test_little_memory_warns() -> None:
    check = check_memory(10**9)
    assert check.status is Status.WARN
    assert check.finding == "1.00 GB free"
    assert check_memory(10**10).status is Status.PASS


def test_a_full_disk_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_disk(tmp_path).status in (Status.PASS, Status.WARN)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10**6})())
    check = check_disk(tmp_path)
    assert check.status is Status.WARN
    assert str(tmp_path) in check.finding


def test_without_a_compiler_the_kernels_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("MSPORT_NATIVE", raising=False)
    check = check_compiler(timeout=600)
    assert check.status is Status.WARN
    assert "no C++ compiler found" in check.finding
    assert check.remedy is not None
    assert "install g++" in check.remedy


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        ("echo 'fatal error: no standard library' >&2\nexit 1", "no standard library"),
        ('for last in "$@"; do :; done\necho no library > "$last"', "OSError"),
    ],
    ids=["fails", "writes no library"],
)
def test_a_compiler_that_makes_no_library_warns_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, finding: str
) -> None:
    compiler = tmp_path / "broken-g++"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("MSPORT_CACHE", str(tmp_path))
    monkeypatch.delenv("MSPORT_NATIVE", raising=False)
    check = check_compiler(timeout=600)
    assert check.status is Status.WARN
    assert finding in check.finding


def test_kernels_that_are_switched_off_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_NATIVE", "0")
    assert check_compiler(timeout=1).finding == "disabled by MSPORT_NATIVE=0"
