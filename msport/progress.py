"""How far a long piece of work has come, and how long each of its phases took."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """`done` of `total` of the work `phase` are done: bytes, tokens, runs, or 1 where there is nothing to count.

    `tensor` is the one in work, if any. An earlier run has done `resumed` of what is done.
    """

    phase: str
    done: int = 0
    total: int = 1
    tensor: str = ""
    resumed: int = 0


# Never called by two threads at once.
Progress = Callable[[Step], None]


class Counter:
    """Adds up what one or several threads have done of `phase` and passes it on to `progress`."""

    def __init__(self, phase: str, total: int, progress: Progress | None, resumed: int = 0) -> None:
        self._phase = phase
        self._total = total
        self._progress = progress
        self._done = self._resumed = resumed
        self._lock = threading.Lock()
        if resumed:
            self.add(0)

    def add(self, amount: int, tensor: str = "") -> None:
        """`amount` more is done, of `tensor`."""
        if self._progress is None:
            return
        with self._lock:
            self._done += amount
            self._progress(Step(self._phase, self._done, self._total, tensor, self._resumed))

    def finish(self) -> None:
        """Everything is done."""
        self.add(self._total - self._done)


class Phases:
    """Times phases that follow one another and passes their progress on; `seconds` is by name, in order."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int = 1) -> Iterator[Callable[[int], None]]:
        """Gives a function to call with each amount done; at the end the phase counts as done."""
        counter = Counter(name, total, self._progress)
        counter.add(0)
        began = time.perf_counter()
        try:
            yield counter.add
        finally:
            self.seconds[name] = time.perf_counter() - began
        counter.finish()
