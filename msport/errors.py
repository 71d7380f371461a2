"""Errors a user can cause.

Each message is one line that says what is wrong, in which file, and what to do about it. They are raised where the
fault is found; ``msport.cli`` is the one place that turns them into a line on stderr and an exit code.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = 8
_REPR.maxlong = 40


def parameter(name: str, option: str | None = None) -> str:
    """An argument as a message names it: for callers from Python, and for the command line, which shows `option` alone.

    `option` is the name with dashes unless given.
    """
    return f"`{name}` ({option or '--' + name.replace('_', '-')})"


def quote(value: Any) -> str:
    """``repr(value)`` with control characters escaped and the middle of anything long left out."""
    return _REPR.repr(value)


def name_in_text(name: str, most: int = 120) -> str:
    """`name` as it is if it is printable and has at most `most` characters, else as `quote` writes it."""
    return name if name.isprintable() and len(name) <= most else quote(name)


def enumerate_some(items: Sequence[str], shown: int = 8) -> str:
    """The first `shown` of `items` with commas between them, and how many more there are."""
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + rest


class MsportError(Exception):
    """Base of every error that is the input's or the machine's fault, not msport's."""


class CheckpointError(MsportError):
    """A checkpoint file is malformed, or the files of a checkpoint disagree."""


class ConfigError(MsportError):
    """``config.json`` lacks a field, holds a wrong value, or contradicts the tensors."""


class UnsupportedError(MsportError):
    """The input is well formed, but msport does not implement what it asks for."""


class HubError(MsportError):
    """The Hub cannot be reached, or does not give out what was asked for."""


class OutputError(MsportError):
    """The output cannot be written: folder not empty, disk full, no permission."""


class UsageError(MsportError):
    """An argument is outside what the call accepts."""


class MissingDependencyError(MsportError):
    """An optional package is needed for this command and is not installed."""
