"""Ctrl-C and SIGTERM stop a command cleanly; its last line says what was done.

Whenever MindSpore compiles or runs a graph, it replaces Python's handler of SIGINT by its own, which ends the process
by SIGTERM. Therefore SIGINT is blocked in every thread, which no handler can override, and one thread waits for it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from typing_extensions import Self  # Python 3.10 has none

# A second Ctrl-C ends the process at once, but only after this time: before, it may be the same push of the keys.
_PATIENCE_SECONDS = 1.0
_SECONDS_BETWEEN_KNOCKS = 0.05
_STDERR = 2


class Interruption:
    """Within this context SIGINT and SIGTERM raise `KeyboardInterrupt` in the main thread, once.

    `number` is the signal that came, or None. `quiet` hides what other code writes to stderr after the signal. Only the
    main thread can set handlers; in other threads this context does nothing.
    """

    def __init__(self, *, quiet: bool = True) -> None:
        self.number: int | None = None
        self.done = ""
        self._quiet = quiet
        self._pressed = False
        self._over = False
        self._stderr = -1
        self._waiter: threading.Thread | None = None

    def tell(self) -> int:
        """Prints the last line and returns the exit code, 128 plus the signal's number, as in shells."""
        self._show_stderr()
        word = "stopped by SIGTERM" if self.number == signal.SIGTERM else "interrupted"
        line = f"msport: {word}{self.done or ': nothing was written'}"
        # A terminal may show a bar or ^C in this line.
        click.echo(f"\n{line}" if sys.stderr.isatty() else line, err=True)
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            self._before = signal.signal(signal.SIGTERM, self._stop)
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell ignores it for `msport ... &`
                self._waiter = threading.Thread(target=self._wait, name="msport-interruption", daemon=True)
                self._waiter.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show_stderr()
        if threading.current_thread() is not threading.main_thread():
            return
        self._over = True
        if self._waiter is not None and self._waiter.ident is not None:
            signal.pthread_kill(self._waiter.ident, signal.SIGINT)
            self._waiter.join()
        signal.sigtimedwait({signal.SIGINT}, 0)  # discards one that came late
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))  # which MindSpore may have replaced
        signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _wait(self) -> None:
        signal.sigwait({signal.SIGINT})
        pressed, self._pressed = time.monotonic(), True
        while not self._over:
            if self.number is None:
                # SIGTERM interrupts what the main thread waits for, and MindSpore does not replace its handler. It is
                # sent repeatedly, because the first one may come just before the main thread begins to wait.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            again = signal.sigtimedwait({signal.SIGINT}, _SECONDS_BETWEEN_KNOCKS)
            if again and not self._over and time.monotonic() - pressed > _PATIENCE_SECONDS:
                os._exit(128 + signal.SIGINT)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            return  # already stopping
        self.number = signal.SIGINT if self._pressed else signal.SIGTERM
        if self._quiet:
            self._hide_stderr()
        raise KeyboardInterrupt

    def _hide_stderr(self) -> None:
        """Hides stderr, because MindSpore reports an exception during compilation on several pages."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()
            saved = os.dup(_STDERR)
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), _STDERR)
            self._stderr = saved

    def _show_stderr(self) -> None:
        if self._stderr >= 0:
            with suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(self._stderr, _STDERR)
            os.close(self._stderr)
            self._stderr = -1


@contextmanager
def telling(done: Callable[[], str]) -> Iterator[None]:
    """If a command is stopped in this context, its last line ends with `done()`, for example " after 17 tokens"."""
    try:
        yield
    except BaseException as error:
        context = click.get_current_context(silent=True)
        interruption = None if context is None else context.find_object(Interruption)
        if interruption is not None and (interruption.number is not None or isinstance(error, KeyboardInterrupt)):
            interruption.done = interruption.done or done()
        raise
