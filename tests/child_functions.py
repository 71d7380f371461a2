"""Functions that the tests of msport.child call in a child process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from msport.errors import UsageError
from msport.progress import Progress, Step


def add(a: Any, b: Any, *, progress: Progress) -> Any:
    progress(Step("adding", 1, 2))
    progress(Step("adding", 2, 2))
    return a + b


def whereabouts(*, progress: Progress) -> dict[str, Any]:
    print("printed by the function")
    return {
        "pid": os.getpid(),
        "path": sys.path,
        "cores": sorted(os.sched_getaffinity(0)),
        "variable": os.environ.get("MSPORT_TEST_VARIABLE"),
        "script": sys.argv[0],
    }


def refuse(*, progress: Progress) -> None:
    raise UsageError("the number 7 is too small")


def stumble(*, progress: Progress) -> None:
    raise ZeroDivisionError("first line\nsecond line")


def crash(*, progress: Progress) -> None:
    print("about to crash", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def vanish(*, progress: Progress) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(*, progress: Progress) -> None:
    os._exit(3)


def hang(*, progress: Progress) -> None:
    time.sleep(600)


def swell(size: int, *, progress: Progress) -> int:
    return len(bytes(size))


def tick(file: str, *, progress: Progress) -> None:
    """Writes its process id to `file` and reports progress for ten minutes."""
    Path(file).write_text(str(os.getpid()), encoding="utf-8")
    for step in range(6000):
        progress(Step("ticking", step, 6000))
        time.sleep(0.1)


def linger(*, progress: Progress) -> str:
    """Answers, and then crashes while Python shuts down, as a library may."""
    import atexit

    atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
    return "answer"
