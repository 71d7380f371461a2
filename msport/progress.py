"""Progress of long work, and the time of each of its phases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Step:
    """`done` of `total` units of `phase` are done: bytes, tokens, runs, or 1 if there is nothing to count.

    `tensor` is the current one, if any. An earlier run did `resumed` of `done`.
    """

    phase: str
    done: int = 0
    total: int = 1
    tensor: str = ""
    resumed: int = 0


# Never called by two threads at the same time.
Progress = Callable[[Step], None]


def titled(title: str, progress: Progress | None) -> Progress | None:
    """`progress` with `title` before the name of each phase; None stays None."""
    if progress is None:
        return None
    report = progress
    return lambda step: report(replace(step, phase=f"{title} {step.phase}"))


class Counter:
    """Adds up the work of one or several threads in `phase` and reports it to `progress`."""

    def __init__(self, phase: str, total: int, progress: Progress | None, resumed: int = 0) -> None:
        self._phase = phase
        self._total = total
        self._progress = progress
        self._done = self._resumed = resumed
        self._lock = threading.Lock()
        if resumed:
            self.add(0)

    def add(self, amount: int, tensor: str = "") -> None:
        """Adds `amount`, done for `tensor`."""
        if self._progress is None:
            return
        with self._lock:
            self._done += amount
            self._progress(Step(self._phase, self._done, self._total, tensor, self._resumed))

    def finish(self) -> None:
        """Reports that everything is done."""
        self.add(self._total - self._done)


class Phases:
    """Times consecutive phases and reports their progress. `seconds` maps each phase's name to its time, in order."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int = 1) -> Iterator[Callable[[int], None]]:
        """Yields a function to call with each amount done. At the end of the context the phase is done."""
        counter = Counter(name, total, self._progress)
        counter.add(0)
        began = time.perf_counter()
        try:
            yield counter.add
        finally:
            self.seconds[name] = time.perf_counter() - began
        counter.finish()
