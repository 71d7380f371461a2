"""What a command does, and a user reads, when it is stopped before its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from msport.cli import describe
from msport.convert.resume import kept_after
from msport.errors import OutputError

TERMINATED = 128 + signal.SIGTERM


@contextmanager
def resumable() -> Iterator[None]:
    """Lets SIGTERM stop the work in good order, and says of every failure what is kept and how to go on.

    Raises OutputError for an error after which something is kept; Ctrl-C and SIGTERM print a line and go on their way.
    """
    try:
        with stopping_on_sigterm():
            yield
    except Exception as error:
        if kept := kept_after(error):
            raise OutputError(f"{describe(error)}; {_how_to_go_on(kept)}") from error
        raise
    except (KeyboardInterrupt, SystemExit) as stop:
        if kept := kept_after(stop):
            click.echo(f"msport: {_how_to_go_on(kept)}", err=True)
        raise


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM raise SystemExit, so that temporary files are removed on the way out."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _how_to_go_on(kept: Path) -> str:
    return f"what is done is kept: run the same command again to go on, or remove {kept}"
