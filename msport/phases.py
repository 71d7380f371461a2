"""How far a piece of work has come, and how long each of its phases took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

# Called with the name of a phase, how much of it is done, and how much there is: tokens, bytes of weights, or 1.
Progress = Callable[[str, int, int], None]


def utc_now() -> str:
    """The moment as every report writes it: ISO 8601, in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


class Phases:
    """Times phases that follow one another and passes their progress on; `seconds` is by name, in order.

    `date` is when it was made, in UTC.
    """

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self.date = utc_now()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, total: int = 1) -> Iterator[Callable[[int], None]]:
        """Gives a function to call with each amount done; at the end the phase counts as done."""
        done = 0

        def advance(amount: int) -> None:
            nonlocal done
            done += amount
            self._report(name, done, total)

        self._report(name, 0, total)
        began = time.perf_counter()
        try:
            yield advance
        finally:
            self.seconds[name] = time.perf_counter() - began
        self._report(name, total, total)

    def _report(self, name: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(name, done, total)
