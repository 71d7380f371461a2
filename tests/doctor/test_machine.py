"""Memory, disk and compiler of a machine that lacks them."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from msport.doctor.check import Status
from msport.doctor.machine import available_memory, check_compiler, check_disk, check_memory


def test_a_container_may_take_less_than_the_machine_has(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 400000\n")
    assert available_memory(tmp_path) == 3_000_000 - 2_500_000 + 400_000


def test_an_old_container_too(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("5000000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("4000000\n")
    (tmp_path / "memory" / "memory.stat").write_text("total_inactive_file 250000\n")
    assert available_memory(tmp_path) == 1_250_000


def test_without_a_limit_the_machines_memory_counts(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("2500000\n")
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert available_memory(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.5)


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
    check = check_compiler(timeout=60)
    assert check.status is Status.WARN
    assert "no C++ compiler found" in check.finding
    assert check.remedy is not None
    assert "install g++" in check.remedy


def test_a_compiler_that_fails_warns_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "broken-g++"
    compiler.write_text("#!/bin/sh\necho 'fatal error: no standard library' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("MSPORT_CACHE", str(tmp_path))
    monkeypatch.delenv("MSPORT_NATIVE", raising=False)
    check = check_compiler(timeout=60)
    assert check.status is Status.WARN
    assert "no standard library" in check.finding


def test_a_library_that_cannot_be_loaded_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "empty-g++"
    compiler.write_text('#!/bin/sh\nfor last in "$@"; do :; done\necho no library > "$last"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("MSPORT_CACHE", str(tmp_path))
    monkeypatch.delenv("MSPORT_NATIVE", raising=False)
    check = check_compiler(timeout=60)
    assert check.status is Status.WARN
    assert "OSError" in check.finding


def test_kernels_that_are_switched_off_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_NATIVE", "0")
    assert check_compiler(timeout=1).finding == "disabled by MSPORT_NATIVE=0"
