"""What conftest.py promises: cases that are the same whatever ran before, and surroundings that no user has set."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def _drawn() -> list[object]:
    cases: list[object] = []

    @settings(max_examples=100)
    @given(st.integers() | st.text() | st.floats(allow_nan=False))
    def draw(case: object) -> None:
        cases.append(case)

    draw()
    return cases


def test_the_cases_are_the_same_whatever_has_been_imported_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not settings().derandomize:
        pytest.skip("random cases were asked for")
    before = _drawn()
    lines = [f"NUMBER_{number}, TEXT_{number} = {number * 7919 + 12345}, 'text {number}'" for number in range(300)]
    (tmp_path / "module_with_constants.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("module_with_constants")
    assert _drawn() == before


def test_no_cache_is_that_of_the_user() -> None:
    for name in ("MSPORT_CACHE", "HF_HOME", "MODELSCOPE_CACHE"):
        assert not Path(os.environ[name]).is_relative_to(Path.home())


HOSTILE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "HF_HUB_OFFLINE": "1",
    "HF_TOKEN": "hf_secret",
    "MSPORT_OPS": "portable",
    "COLUMNS": "20",
    "MAKEFLAGS": "-j9",
}
# Deaf to Ctrl-C and to being told to end, as a shell starts what runs in its background and nohup what it starts.
DEAF = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
ASKED = """
import os, signal, subprocess, sys
def test_it():
    assert not set({names}) & set(os.environ)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        child = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"],
                                 stdout=subprocess.PIPE)
        child.stdout.readline()
        child.send_signal(number)
        try:
            assert child.wait(timeout=60) == -number
        finally:
            child.kill()
"""


def test_a_user_s_environment_and_a_shell_s_background_do_not_reach_the_tests(tmp_path: Path) -> None:
    for name in ("conftest.py", "ahead.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path)
    (tmp_path / "test_it.py").write_text(ASKED.format(names=sorted(HOSTILE)))
    command = [sys.executable, "-c", DEAF, "-m", "pytest", "-q", "--rootdir", tmp_path, tmp_path]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **HOSTILE}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
