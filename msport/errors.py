"""Errors a user can cause.

Each message is one line that says what is wrong, in which file, and what to do about it. Errors are raised where the
problem is found; only ``msport.cli`` turns them into a line on stderr and an exit code.
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
    """The name of an argument in a message: for callers from Python, and for the command line, which shows only
    `option`.

    `option` defaults to the name with dashes.
    """
    return f"`{name}` ({option or '--' + name.replace('_', '-')})"


def quote(value: Any) -> str:
    """``repr(value)`` with control characters escaped, and without the middle if it is long."""
    return _REPR.repr(value)


def name_in_text(name: str, most: int = 120) -> str:
    """`name` unchanged if it is printable and has at most `most` characters, else `quote(name)`."""
    return name if name.isprintable() and len(name) <= most else quote(name)


def enumerate_some(items: Sequence[str], shown: int = 8) -> str:
    """The first `shown` of `items`, separated by commas, and the number of the others."""
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return ", ".join(items[:shown]) + rest


class MsportError(Exception):
    """Base of every error that the input or the machine causes, not msport."""


class CheckpointError(MsportError):
    """A checkpoint file is malformed, or the files of a checkpoint disagree."""


class ConfigError(MsportError):
    """``config.json`` lacks a field, holds a wrong value, or contradicts the tensors."""


class UnsupportedError(MsportError):
    """The input is well formed, but msport does not implement what it asks for."""


class HubError(MsportError):
    """The Hub cannot be reached, or does not deliver what was requested."""


class OutputError(MsportError):
    """The output cannot be written: folder not empty, disk full, no permission."""


class UsageError(MsportError):
    """An argument is outside what the call accepts."""


class MissingDependencyError(MsportError):
    """An optional package is needed for this command and is not installed."""
