"""The kernels are compiled once, and their absence is a warning, never a failure."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
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
    path = library("mxfp4")
    assert path is not None
    assert path.parent == tmp_path / "cache"
    before = path.stat()
    build._find.cache_clear()
    assert library("mxfp4") == path
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


@needs_compiler
def test_the_compiler_may_be_a_command_with_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrapper = tmp_path / "my ccache"
    wrapper.write_text('#!/bin/sh\necho "$@" >> "$0.log"\nexec "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f'"{wrapper}"   g++ -DNOTHING')
    assert library("mxfp4") is not None
    assert (tmp_path / "my ccache.log").read_text(encoding="utf-8").startswith("g++ -DNOTHING -std=c++17 ")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-ccache g++", "no-such-ccache cannot be run (No such file or directory)"),
        ("sh -c 'echo bad flag >&2; exit 3'", "sh failed with exit code 3: bad flag"),
        ("false", "false failed with exit code 1: it said nothing"),
        ("g++ 'x", "CXX=g++ 'x: No closing quotation"),
    ],
)
def test_the_warning_says_what_failed(
    command: str, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", command)
    with caplog.at_level(logging.WARNING, logger="msport"):
        assert library("mxfp4") is None
    (message,) = (record.getMessage() for record in caplog.records)
    assert message == (f"the C++ kernels cannot be compiled: {reason}; MXFP4 is decoded by NumPy, several times slower")


def test_a_cache_that_cannot_be_written_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSPORT_CACHE", str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.WARNING, logger="msport"):
        assert library() is None
    assert "portable operators are used" in caplog.text


@needs_compiler
def test_threads_and_processes_that_ask_at_once_get_one_whole_library(tmp_path: Path) -> None:
    program = "import sys; from msport.native import library; print(library('mxfp4'))"
    children = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found: list[Path | None] = []
    threads = [threading.Thread(target=lambda: found.append(library("mxfp4"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    paths = {child.communicate()[0].strip() for child in children} | {str(path) for path in found}
    assert len(found) == 4
    assert paths == {str(path) for path in (tmp_path / "cache").iterdir()}


def test_a_user_without_a_home_gets_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MSPORT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("CXX", "g++")
    with caplog.at_level(logging.WARNING, logger="msport"):
        assert library("mxfp4") is None
    assert "home directory" in caplog.text
    assert "MXFP4 is decoded by NumPy" in caplog.text


def test_every_source_belongs_to_one_library() -> None:
    names = [path.name for library in ("operators", "mxfp4", "quantise") for path in build._sources(library)]
    assert sorted(names) == sorted(path.name for path in Path(build.__file__).parent.glob("*.cpp"))


@needs_compiler
@pytest.mark.parametrize(("model", "libraries"), [("gpt-oss", ["mxfp4"]), ("llama", [])])
def test_a_conversion_compiles_what_it_needs_and_no_more(model: str, libraries: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "import msport\n"
        "from msport.sample import write_sample\n"
        "write_sample(sys.argv[1], sys.argv[2])\n"
        "msport.convert_checkpoint(sys.argv[2], sys.argv[3])\n"
        "assert 'mindspore' not in sys.modules\n"
    )
    folders = [str(tmp_path / name) for name in ("hub", "converted")]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "MSPORT_CACHE": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", program, model, *folders], check=True, env=environment)
    cache = tmp_path / "cache"
    assert [path.name.partition("-")[0] for path in cache.glob("*")] == libraries
