"""Progress on stderr: a bar on a terminal, or lines of JSON if asked for."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tqdm import tqdm

from msport.progress import Progress, Step

_SECONDS_BETWEEN_LINES = 1.0
_SECONDS_BETWEEN_TICKS = 0.5
_SCALED_FROM = 10_000  # above this, a bar shows thousands and millions


class ProgressBar:
    """A bar for each phase, only on a terminal, with amounts in `unit`, rate, time left and the current tensor.

    Its clock runs even if a phase has no amounts yet. Work of an earlier run counts as done, but not for the rate.
    """

    def __init__(self, unit: str = "it") -> None:
        self._unit = unit
        self._bar: Any = None
        self._step: Step | None = None
        self._lock = threading.Lock()  # two threads draw the bar
        self._left = threading.Event()
        self._clock = threading.Thread(target=self._tick, name="msport-progress", daemon=True)

    def __call__(self, step: Step) -> None:
        with self._lock:
            if self._bar is None or self._step is None or step.phase != self._step.phase:
                self._close()
                self._bar = self._begin(step)
            self._step = step
            if step.tensor:
                width = shutil.get_terminal_size().columns // 3
                self._bar.set_postfix_str(_of_width(step.tensor, width), refresh=False)
            self._bar.update(step.done - self._bar.n)

    def where(self) -> str:
        """The end of the last line if the command is stopped now, before it wrote anything."""
        if self._step is None:
            return ""
        amount = f", {self._step.done:,} of {self._step.total:,}" if self._step.total > 1 else ""
        return f" at {self._step.phase}{amount}: nothing was written"

    def __enter__(self) -> ProgressBar:
        if sys.stderr.isatty():
            self._clock.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._left.set()
        with self._lock:
            self._close()

    def _begin(self, step: Step) -> Any:
        return tqdm(
            total=step.total,
            initial=step.resumed,
            desc=step.phase,
            unit=self._unit,
            unit_scale=self._unit == "B" or step.total >= _SCALED_FROM,
            bar_format=None if step.total > 1 else "{desc} [{elapsed}]",  # only time can be shown
            disable=None,
        )

    def _tick(self) -> None:
        while not self._left.wait(_SECONDS_BETWEEN_TICKS):
            with self._lock:
                if self._bar is not None:
                    self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ProgressLines:
    """Writes one JSON object per line, with amounts in bytes: at the beginning of a phase, once per second, and at its
    end.
    """

    def __init__(self) -> None:
        self._phase = ""
        self._begin = self._last = 0.0

    def __call__(self, step: Step) -> None:
        now = time.monotonic()
        if step.phase != self._phase:
            self._phase, self._begin, self._last = step.phase, now, 0.0
        if step.done < step.total and self._last and now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        seconds = now - self._begin
        rate = (step.done - step.resumed) / seconds if seconds > 0 else None
        document = {
            "phase": step.phase,
            "done_nbytes": step.done,
            "total_nbytes": step.total,
            "resumed_nbytes": step.resumed,
            "tensor": step.tensor or None,
            "seconds": round(seconds, 3),
            "nbytes_per_second": round(rate) if rate else None,
            "seconds_left": round((step.total - step.done) / rate, 1) if rate else None,
        }
        print(json.dumps(document), file=sys.stderr, flush=True)


def _of_width(note: str, width: int) -> str:
    """The end of `note`, where names differ, in exactly `width` characters, so that the bar keeps its width."""
    return note.ljust(width) if len(note) <= width else f"..{note[2 - width :]}"


def bytes_on_stderr(as_json: bool) -> AbstractContextManager[Progress]:
    """Progress in bytes: lines of JSON, or a bar if stderr is a terminal."""
    return nullcontext(ProgressLines()) if as_json else ProgressBar("B")
