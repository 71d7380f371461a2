"""Progress on stderr, for people: nothing is shown unless stderr is a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from tqdm import tqdm

from msport.convert.progress import Step


class ProgressBar:
    """Shows bytes done, rate, time left and the current tensor; a bar for each phase."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""

    def __call__(self, step: Step) -> None:
        if step.phase != self._phase:
            self._close()
            self._phase = step.phase
            self._bar = tqdm(total=step.total, desc=step.phase, unit="B", unit_scale=True, disable=None)
        self._bar.set_postfix_str(step.tensor, refresh=False)
        self._bar.update(step.done - self._bar.n)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
