"""Ctrl-C and SIGTERM end every command in one line that says what was done; real signals to real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.command import Result, Run
from msport.progress import Step

SIGNALS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "stopped by SIGTERM")]

# MindSpore's way: a handler in C, which Python knows nothing of, in the place of Python's.
OVERRIDE = """
import ctypes, os, signal
def override():
    ctypes.CDLL(None).signal(signal.SIGINT, ctypes.c_void_p(0))
"""
# Ends the process when a function is entered for a time.
AT = """
def at(owner, name, number, time=1):
    function, left = getattr(owner, name), [time]
    def entered(*arguments, **options):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)
        return function(*arguments, **options)
    setattr(owner, name, entered)
"""
# Changes what a command needs once that is imported: after signals have been blocked, which threads inherit.
RUN = """
import msport.cli as cli
def late(name, load=cli.import_module):
    module = load(name)
    patch(module)
    return module
cli.import_module = late
cli.main()
"""
PLAIN = "from msport.cli import main\nmain()\n"


class Place:
    """Where a command runs: what it leaves in its folder, or among the temporary files, is seen."""

    def __init__(self, root: Path) -> None:
        self.folder, self.temporary = root / "folder", root / "temporary"
        self.folder.mkdir()
        self.temporary.mkdir()

    def start(self, script: str, *arguments: object) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "MSPORT_GRAPH_CACHE": "off",
            "TMPDIR": str(self.temporary),
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, "-c", script, *map(str, arguments)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=environment, **pipes)

    def finish(self, child: subprocess.Popen[str]) -> Result:
        out, err = child.communicate(timeout=600)
        assert child.returncode is not None
        return Result(child.returncode, out, err)

    def run(self, script: str, *arguments: object) -> Result:
        return self.finish(self.start(script, *arguments))

    @property
    def left(self) -> list[str]:
        """Not counting the folder that torch makes when it is imported, for kernels that it may compile."""
        found = [*self.folder.iterdir(), *self.temporary.iterdir()]
        return [path.name for path in found if not path.name.startswith("torchinductor_")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_a_signal_ends_a_command_in_one_line_whoever_has_replaced_the_handler(
    place: Place, converted: Path, number: int, status: int, word: str
) -> None:
    script = OVERRIDE + AT + f"def patch(module): override(); at(module, 'inspect_path', {number})\n"
    result = place.run(script + RUN, "inspect", converted)
    assert result == (status, "", f"msport: {word}: nothing was written\n")
    assert place.left == []


@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
def test_what_waits_is_woken(place: Place, converted: Path, number: int, status: int, word: str) -> None:
    script = (
        "import threading, os\n"
        "def look(path):\n"
        f"    threading.Timer(0.2, os.kill, (os.getpid(), {number})).start()\n"
        "    threading.Event().wait()\n"
        "def patch(module): module.inspect_path = look\n"
    )
    assert place.run(script + RUN, "inspect", converted) == (status, "", f"msport: {word}: nothing was written\n")


def test_a_second_ctrl_c_ends_what_does_not_come_to_an_end(place: Place, converted: Path) -> None:
    script = (
        "import threading\n"
        "def look(path):\n"
        "    try: print('looking', flush=True); threading.Event().wait()\n"
        "    finally: print('stopping', flush=True); threading.Event().wait()\n"
        "def patch(module): module.inspect_path = look\n"
    )
    child = place.start(script + RUN, "inspect", converted)
    assert child.stdout is not None
    assert child.stdout.readline() == "looking\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "stopping\n"
    while child.poll() is None:
        child.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert place.finish(child).status == 130


def test_whoever_turns_the_interruption_into_an_error_of_his_own_does_not_hide_it(
    place: Place, converted: Path
) -> None:
    script = (
        "import os, signal, time\n"
        "def look(path):\n"
        "    try: os.kill(os.getpid(), signal.SIGINT); time.sleep(60)\n"
        "    except KeyboardInterrupt: os.write(2, b'a screen of errors'); raise RuntimeError('of MindSpore')\n"
        "def patch(module): module.inspect_path = look\n"
    )
    result = place.run(script + RUN, "inspect", converted)
    assert result == (130, "", "msport: interrupted: nothing was written\n")
    assert place.run(script + RUN, "--debug", "inspect", converted).err.startswith("a screen of errors")


def test_a_shell_that_starts_its_background_deaf_to_ctrl_c_is_obeyed(place: Place, converted: Path) -> None:
    script = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + OVERRIDE + AT
    script += f"def patch(module): override(); at(module, 'inspect_path', {int(signal.SIGINT)})\n"
    result = place.run(script + RUN, "inspect", converted)
    assert result.status == 0
    assert "GptOssForCausalLM" in result.out


def test_the_handlers_of_a_program_that_calls_the_command_line_are_its_own_again(msport: Run, converted: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(0, ())
    assert msport("inspect", converted).status == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), signal.pthread_sigmask(0, ())) == before


def test_generation_says_how_many_tokens_there_were_and_ends_the_line(
    msport: Run, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mindspore")
    from msport.msmodels import loading

    class Model:
        stop_ids = frozenset({0})

        def warm_up(self, phases: Any) -> None:
            pass

        def generate(self, ids: list[int], max_new_tokens: int, **options: Any) -> Iterator[int]:
            yield from (72, 105)
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loading, "load_model", lambda *arguments, **options: Model())
    result = msport("generate", converted, "-p", "hello")
    assert result.status == 143
    assert result.out.endswith("\n")
    last = result.err.splitlines()[-1]
    assert last.startswith("msport: stopped by SIGTERM after 2 tokens, ")
    assert re.search(r" tokens/s; prompt [\d.]+ s, .*, first token [\d.]+ s, total [\d.]+ s$", last)


def test_doctor_says_how_many_checks_there_were(msport: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from msport.doctor import diagnosis

    monkeypatch.setattr(diagnosis, "check_compiler", lambda timeout: os.kill(os.getpid(), signal.SIGTERM))
    result = msport("doctor")
    assert result.status == 143
    lines = result.out.splitlines()
    assert (
        result.err.lstrip() == f"msport: stopped by SIGTERM after {sum('  -> ' not in line for line in lines)} checks\n"
    )


def test_a_phase_that_is_cut_short_is_named(msport: Run, converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import msport.bench as bench
    import msport.validate as validate

    def stop(*arguments: Any, progress: Any, **options: Any) -> None:
        progress(Step("run model", 0, 865))
        progress(Step("run model", 120, 865))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(validate, "validate_model", stop)
    monkeypatch.setattr(bench, "benchmark", stop)
    for command in ("validate", "bench"):
        result = msport(command, converted)
        assert (result.status, result.out) == (143, "")
        assert result.err.lstrip() == "msport: stopped by SIGTERM at run model, 120 of 865: nothing was written\n"


STOPPED_IN_GENERATE = {
    "import": "import sys\n    class Stop:\n"
    "        def find_spec(self, name, *rest):\n"
    "            if name == 'mindspore.train': os.kill(os.getpid(), {number})\n"
    "    sys.meta_path.insert(0, Stop())",
    "load": "import msport.msmodels.weights as w; at(w, 'place_weight', {number}, 3)",
    "parse": "from mindspore.graph._parse import parser; at(parser.Parser, 'parse', {number}, 9)",
    "run": "from msport.msmodels.engine.graphs import Graphs; at(Graphs, 'decode', {number}, 7)",
}


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
@pytest.mark.parametrize("moment", STOPPED_IN_GENERATE)
def test_generate_stops_at_any_moment(
    place: Place, converted: Path, moment: str, number: int, status: int, word: str
) -> None:
    script = f"import os\n{AT}\ndef patch(module):\n    {STOPPED_IN_GENERATE[moment].format(number=number)}\n"
    result = place.run(script + RUN, "generate", converted, "-p", "hello", "--max-new-tokens", 400)
    assert result.status == status
    *_, last = result.err.splitlines()
    where = {"import": "at starting", "load": "at loading", "parse": "at compiling", "run": "after "}[moment]
    assert last.startswith(f"msport: {word} {where}")
    assert "ERROR" not in result.err
    assert "Traceback" not in result.err
    assert place.left == []


@pytest.mark.slow
def test_a_signal_in_the_middle_of_a_graph_does_too(place: Place, converted: Path) -> None:
    child = place.start(PLAIN, "generate", converted, "-p", "hello", "--max-new-tokens", 4000)
    assert child.stdout is not None
    while child.stdout.read(1) == "":
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    result = place.finish(child)
    assert result.status == 130
    assert result.err.splitlines()[-1].startswith("msport: interrupted after ")
    assert result.out.endswith("\n")


STOPPED_IN_VALIDATE = {
    "load reference": "from msport.validate.reference import run; at(run, 'load_reference', {number})",
    "run reference": "from msport.validate.reference import run; at(run, 'record', {number})",
    "run model": "from mindspore.graph._parse import parser; at(parser.Parser, 'parse', {number}, 9)",
}


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize(("number", "status", "word"), SIGNALS)
@pytest.mark.parametrize("phase", STOPPED_IN_VALIDATE)
def test_validate_stops_in_any_phase_and_leaves_no_temporary_files(
    place: Place, converted: Path, phase: str, number: int, status: int, word: str
) -> None:
    pytest.importorskip("transformers")
    script = f"import os\n{AT}\ndef patch(module):\n    {STOPPED_IN_VALIDATE[phase].format(number=number)}\n"
    result = place.run(script + RUN, "validate", converted, "--max-length", 16, "--ids", "1,2,3")
    assert result.status == status
    *_, last = result.err.splitlines()
    assert last.startswith(f"msport: {word} at {phase}")
    assert last.endswith(": nothing was written")
    assert "ERROR" not in result.err
    assert place.left == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["bench", "doctor"])
def test_the_processes_of_a_command_end_with_it(place: Place, converted: Path, command: str) -> None:
    child = place.start(PLAIN, command, converted)
    children: list[psutil.Process] = []
    while not children:
        assert child.poll() is None
        children = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGINT)
    result = place.finish(child)
    assert result.status == 130
    assert result.err.splitlines()[-1].startswith("msport: interrupted")
    assert psutil.wait_procs(children, timeout=600)[1] == []
    assert place.left == []
