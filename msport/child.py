"""Calls a function in a new Python process, so that its memory, threads, compiled graphs and crashes stay separate.

The child has this process's ``sys.path`` but imports only what the function needs. Arguments and result are JSON of any
size. The output of the function and its libraries goes to a log, which is shown only if the call fails.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import astuple
from importlib import import_module
from typing import IO, Any

from msport import errors
from msport.errors import MsportError
from msport.progress import Progress, Step

# sys.path is set first. With `python -m`, a file in the current folder could replace a package.
_BOOTSTRAP = r"import sys; sys.path[:] = sys.argv.pop(1).split('\n'); from msport.child import main; main()"
_GRACE_SECONDS = 10.0
_FAREWELL_SECONDS = 2.0


class ChildError(MsportError):
    """The process of a call crashed, was killed, timed out, or raised an error that is not an `MsportError`."""


class ChildLog(Exception):  # noqa: N818  only describes an error
    """What a failed child wrote to stdout and stderr; the cause of a `ChildError`, shown by ``--debug``."""


def call_in_child(
    function: str,
    arguments: Mapping[str, Any],
    *,
    task: str,
    environment: Mapping[str, str] | None = None,
    cores: Collection[int] | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    progress: Progress | None = None,
    log: list[str] | None = None,
) -> Any:
    """Returns what `function`, named ``package.module:name``, returns for the keywords `arguments` and ``progress``.

    `task` names the purpose of the child in messages. `environment` is added to this process's environment. `cores` are
    the processors that the child may use (None: the same as here). `timeout` is in seconds. `memory` is in bytes of
    address space; beyond it the child gets a MemoryError. `log` receives what the child printed. An `MsportError` of
    the child is raised here with the same class; any other end of the child raises `ChildError`.
    """
    call = {
        "function": function,
        "arguments": dict(arguments),
        "cores": sorted(cores) if cores else None,
        "memory": memory,
    }
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(json.dumps(call).encode("ascii"))
        given.seek(0)
        reader, writer = os.pipe()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _BOOTSTRAP, "\n".join(sys.path), str(writer)],
            stdin=given,  # not argv, where a word is limited to 128 KB
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(writer,),
            env={"MS_OM_PATH": os.devnull, **os.environ, **(environment or {})},  # as in msport.msmodels
            start_new_session=True,  # Ctrl-C in a terminal reaches only the caller, which then ends the child
        )
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8") as replies:
            expired, answer = _converse(process, replies, timeout, progress)
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    if log is not None:
        log.append(text)
    if expired:
        raise ChildError(f"{task} did not end within {timeout:g} s") from ChildLog(text)
    if answer is None:
        raise ChildError(f"{task} {_describe_end(process.returncode, text)}") from ChildLog(text)
    kind, value = answer
    if kind == "out of memory":
        limit = f"needs more than {memory >> 20} MB of memory" if memory else "ran out of memory"
        raise ChildError(f"{task} {limit}") from ChildLog(text)
    if kind == "error":
        name, message = value
        raise _error_class(name)(message if name else f"{task} failed: {message}") from ChildLog(text)
    return value


def _converse(
    process: subprocess.Popen[bytes], replies: IO[str], timeout: float | None, progress: Progress | None
) -> tuple[bool, tuple[str, Any] | None]:
    """Whether the time ran out, and the child's last message: ``("result", value)``, ``("error", ...)`` or None."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _end(process)

    timer = threading.Timer(timeout or 0.0, expire)
    if timeout is not None:
        timer.start()
    answer: tuple[str, Any] | None = None
    try:
        for line in replies:
            kind, value = json.loads(line)
            if kind != "progress":
                answer = (kind, value)
                break
            if progress is not None:
                progress(Step(*value))
        # A library may hang or crash at exit; the result is kept.
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS if answer else None)
    finally:
        timer.cancel()
        _end(process)
    return expired.is_set() and answer is None, answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the child and the processes that it started. It gets a moment to remove its temporary files."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_FAREWELL_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _describe_end(returncode: int, text: str) -> str:
    if returncode == -signal.SIGKILL:
        return "was killed: the machine has most likely run out of memory"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = f"; its last line was: {lines[-1]}" if lines else ""
    if returncode < 0:
        return f"crashed with {signal.Signals(-returncode).name}{last}"
    return f"ended with exit code {returncode} and no result{last}"


def _error_class(name: str) -> type[MsportError]:
    found = getattr(errors, name, None) if name else None
    return found if isinstance(found, type) and issubclass(found, MsportError) else ChildError


def main() -> None:
    """The child's side: reads the call from stdin and writes replies as lines of JSON to the descriptor in ``argv``."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed
    channel, call = int(sys.argv[1]), json.load(sys.stdin)
    os.set_inheritable(channel, False)
    sys.argv = [__file__]  # MindSpore's compiler cache opens the script that argv names
    with os.fdopen(channel, "w", encoding="utf-8") as pipe:

        def reply(kind: str, *value: Any) -> None:
            try:
                print(json.dumps([kind, value[0] if len(value) == 1 else value]), file=pipe, flush=True)
            except BrokenPipeError:
                os._exit(1)  # the caller was killed, so nobody needs the rest

        try:
            reply("result", _perform(call, lambda step: reply("progress", *astuple(step))))
        except MsportError as error:
            reply("error", type(error).__name__, str(error))
        except MemoryError:
            reply("out of memory", None)
        except Exception as error:
            traceback.print_exc()
            reply("error", "", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")


def _perform(call: dict[str, Any], progress: Progress) -> Any:
    if call["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, call["cores"])
    if call["memory"]:
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        limit = call["memory"] if most == resource.RLIM_INFINITY else min(call["memory"], most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    module, _, name = call["function"].partition(":")
    return getattr(import_module(module), name)(**call["arguments"], progress=progress)
