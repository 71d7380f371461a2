"""Report files that a command writes at its end, and checks at its beginning."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msport.checkpoint import write_atomically
from msport.errors import OutputError, UsageError

STDOUT = "-"


def check_outputs(files: Mapping[str, str | None], to_stdout: tuple[str, ...] = ("--json",)) -> None:
    """Refuses a file, by its option, that could not be written after a run of minutes; None: not asked for.

    Only the options `to_stdout` take ``-``. Raises `OutputError` or `UsageError`.
    """
    taken: dict[Path, str] = {}
    for option, name in files.items():
        if name is None or (name == STDOUT and option in to_stdout):
            continue
        if name == STDOUT:
            raise UsageError(f"{option} -: only {' and '.join(to_stdout)} can go to stdout; give {option} a file")
        path = Path(name).absolute()
        _check_output(name, path)
        if path in taken:
            raise UsageError(f"{name}: both {taken[path]} and {option} go there; give each a file of its own")
        taken[path] = option


def write_output(name: str | None, text: str) -> None:
    """Writes `text` to the file `name`, whole or not at all; None and ``-`` write nothing here."""
    if name is None or name == STDOUT:
        return
    path = Path(name)
    if path.exists() and not path.is_file():  # a pipe or a device, such as /dev/stderr
        path.write_text(text, encoding="utf-8")
    else:
        write_atomically(path.resolve(), text)


def _check_output(name: str, path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{name}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise OutputError(f"{name}: its folder does not exist; make it first")
    if not (path.exists() and not path.is_file()) and not os.access(path.resolve().parent, os.W_OK):
        raise OutputError(f"{name}: its folder cannot be written to; choose another")
