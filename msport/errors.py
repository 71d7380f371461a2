"""Errors a user can cause.

Each message is one line that says what is wrong, in which file, and what to do about it. They are raised where the
fault is found; ``msport.cli`` is the one place that turns them into a line on stderr and an exit code.
"""

from __future__ import annotations


def parameter(name: str, option: str | None = None) -> str:
    """An argument as a message names it: for callers from Python, and for the command line, which shows `option` alone.

    `option` is the name with dashes unless given.
    """
    return f"`{name}` ({option or '--' + name.replace('_', '-')})"


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
