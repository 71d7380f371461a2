"""The kernels are compiled once, and their absence is a warning, never a failure."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from msport.native import build, library

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler on this machine")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("MSPORT_CACHE", str(tmp_path / "cache"))
    for name in ("CXX", "MSPORT_NATIVE"):
        monkeypatch.delenv(name, raising=False)
    build._find.cache_clear()
    yield
    build._find.cache_clear()


@needs_compiler
def test_the_library_is_compiled_once_and_found_again(tmp_path: Path) -> None:
    path = library()
    assert path is not None
    assert path.parent == tmp_path / "cache"
    before = path.stat()
    build._find.cache_clear()
    assert library() == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # nothing temporary is left


def test_the_kernels_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MSPORT_NATIVE", "0")
    assert library() is None
    assert not (tmp_path / "cache").exists()


def test_without_a_compiler_there_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING, logger="msport"):
        assert library() is None
        assert library() is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "install g++" in caplog.text


def test_a_compiler_that_fails_is_a_warning_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setenv("CXX", "false")
    with caplog.at_level(logging.WARNING, logger="msport"):
        assert library() is None
    assert "portable operators are used" in caplog.text
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSPORT_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, logger="msport"):
        assert library() is None
    assert "portable operators are used" in caplog.text
