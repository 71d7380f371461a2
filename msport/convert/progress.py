"""How far a long operation has come."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """`done` of `total` bytes of the operation `phase` are done, `resumed` of them by an earlier run.

    `tensor` is one that is in work, empty at the beginning.
    """

    phase: str
    done: int
    total: int
    tensor: str
    resumed: int = 0


# Never called by two threads at once.
Progress = Callable[[Step], None]


class Counter:
    """Adds up what several workers have done and passes it on to `progress`."""

    def __init__(self, phase: str, total: int, progress: Progress | None, resumed: int = 0) -> None:
        self._phase = phase
        self._total = total
        self._progress = progress
        self._done = self._resumed = resumed
        self._lock = threading.Lock()
        if resumed:
            self.add(0, "")

    def add(self, nbytes: int, tensor: str) -> None:
        """`nbytes` more of `tensor` are done."""
        if self._progress is None:
            return
        with self._lock:
            self._done += nbytes
            self._progress(Step(self._phase, self._done, self._total, tensor, self._resumed))
