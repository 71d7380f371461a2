"""Progress on stderr: a bar where a person watches, lines of JSON where a program asked for them."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from msport.convert.progress import Step

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none

_SECONDS_BETWEEN_LINES = 1.0
_SECONDS_BETWEEN_TICKS = 0.5
_SCALED_FROM = 10_000  # from here on a bar counts in thousands and millions


class PhaseBar:
    """A bar for each phase, of amounts without a unit; on a terminal alone.

    Its clock goes on while a phase has no amounts to tell, or waits for the first.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""
        self._amount = ""
        self._lock = threading.Lock()  # one for the bar, which two threads show
        self._left = threading.Event()
        self._clock = threading.Thread(target=self._tick, name="msport-progress", daemon=True)

    def __call__(self, phase: str, done: int, total: int) -> None:
        self._show(phase, done, total)

    def where(self) -> str:
        """What the last line of a command says that is stopped now, and has written nothing."""
        return f" at {self._phase}{self._amount}: nothing was written" if self._phase else ""

    def _show(self, phase: str, done: int, total: int, initial: int = 0, note: str = "", **options: Any) -> None:
        self._amount = f", {done:,} of {total:,}" if total > 1 else ""
        with self._lock:
            if self._bar is None or phase != self._phase:
                self._close()
                self._phase = phase
                options.setdefault("unit_scale", total >= _SCALED_FROM)
                if total <= 1:  # there is nothing to count but time
                    options.setdefault("bar_format", "{desc} [{elapsed}]")
                self._bar = tqdm(total=total, initial=initial, desc=phase, disable=None, **options)
            if note:
                self._bar.set_postfix_str(_of_width(note, shutil.get_terminal_size().columns // 3), refresh=False)
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._clock.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        with self._lock:
            self._close()

    def _tick(self) -> None:
        while not self._left.wait(_SECONDS_BETWEEN_TICKS):
            with self._lock:
                if self._bar is not None:
                    self._bar.refresh()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ProgressBar(PhaseBar):
    """Shows bytes done, rate, time left and the current tensor.

    What an earlier run has done counts as done, but not towards the rate.
    """

    def __call__(self, step: Step) -> None:  # type: ignore[override]
        self._show(step.phase, step.done, step.total, step.resumed, step.tensor, unit="B", unit_scale=True)


class ProgressLines:
    """Writes a JSON object a line: at the beginning and the end of each phase, and once a second between."""

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

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _of_width(note: str, width: int) -> str:
    """The end of `note`, in which names differ, in `width` characters: a bar that takes the rest does not jump."""
    return note.ljust(width) if len(note) <= width else f"..{note[2 - width :]}"


def progress_on_stderr(as_json: bool) -> ProgressBar | ProgressLines:
    """Progress as lines of JSON, or as a bar where stderr is a terminal."""
    return ProgressLines() if as_json else ProgressBar()
