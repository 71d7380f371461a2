"""A call in a child returns what the function returns, and whatever ends the child becomes one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from msport.child import ChildError, ChildLog, call_in_child
from msport.errors import UsageError
from msport.progress import Step


def _call(name: str, **options: Any) -> Any:
    return call_in_child(f"child_functions:{name}", options.pop("arguments", {}), task="the test", **options)


def test_arguments_and_result_travel_and_progress_is_passed_on() -> None:
    steps: list[Step] = []
    answer = _call("add", arguments={"a": 2, "b": 3}, progress=steps.append)
    assert answer == 5
    assert steps == [Step("adding", 1, 2), Step("adding", 2, 2)]


def test_a_child_is_another_process_with_our_path_and_the_environment_and_cores_asked_for() -> None:
    core = min(os.sched_getaffinity(0))
    log: list[str] = []
    there = _call("whereabouts", environment={"MSPORT_TEST_VARIABLE": "here"}, cores=[core], log=log)
    assert there["pid"] != os.getpid()
    assert there["path"] == sys.path
    assert there["cores"] == [core]
    assert there["variable"] == "here"
    assert Path(there["script"]).is_file()
    assert log == ["printed by the function\n"]


def test_a_file_of_the_current_folder_is_not_imported_instead_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "click.py").write_text("raise SystemExit('the wrong click')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert _call("add", arguments={"a": 1, "b": 1}) == 2


def test_an_error_of_the_user_keeps_its_class_and_words() -> None:
    with pytest.raises(UsageError, match=r"^the number 7 is too small$"):
        _call("refuse")


def test_any_other_error_becomes_one_line_with_the_traceback_as_its_cause() -> None:
    with pytest.raises(ChildError, match=r"^the test failed: ZeroDivisionError: first line$") as caught:
        _call("stumble")
    assert isinstance(caught.value.__cause__, ChildLog)
    assert "in stumble" in str(caught.value.__cause__)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", r"^the test crashed with SIGSEGV; its last line was: "),
        ("vanish", r"^the test was killed: the machine has most likely run out of memory$"),
        ("leave", r"^the test ended with exit code 3 and no result$"),
    ],
)
def test_a_child_that_dies_is_one_clear_line(name: str, message: str) -> None:
    with pytest.raises(ChildError, match=message):
        _call(name)


def test_a_child_that_hangs_is_ended() -> None:
    began = time.perf_counter()
    with pytest.raises(ChildError, match=r"^the test did not end within 1 s$"):
        _call("hang", timeout=1)
    assert time.perf_counter() - began < 300  # of the 600 that it would hang


def test_a_child_that_needs_too_much_memory_ends_with_that_reason() -> None:
    with pytest.raises(ChildError, match=r"^the test needs more than 256 MB of memory$"):
        _call("swell", arguments={"size": 1 << 30}, memory=256 << 20)
    assert _call("swell", arguments={"size": 1 << 20}, memory=256 << 20) == 1 << 20


def test_arguments_may_be_longer_than_a_command_line() -> None:
    assert _call("add", arguments={"a": "a" * 1_000_000, "b": "\udcc4"}) == "a" * 1_000_000 + "\udcc4"


def test_a_child_ends_when_its_caller_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from msport.child import call_in_child;"
        f"call_in_child('child_functions:tick', {{'file': {str(file)!r}}}, task='ticking')"
    )
    caller = subprocess.Popen([sys.executable, "-c", code])
    _wait_until(lambda: file.exists() and file.read_text(encoding="utf-8") != "")
    caller.kill()
    caller.wait()
    child = int(file.read_text(encoding="utf-8"))
    _wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_crash_after_the_answer_does_not_spoil_it() -> None:
    assert _call("linger") == "answer"
