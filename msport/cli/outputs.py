"""Report files: a command checks them before it runs and writes them at its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

import click

from msport.checkpoint import write_atomically
from msport.errors import OutputError, UsageError

STDOUT = "-"

# Gives a report in one of its forms, with the end of its last line.
Render = Callable[[], str]


def check_outputs(
    outputs: Mapping[str, str | None], printable: Sequence[str] = ("--json",), read: Sequence[str] = ()
) -> None:
    """Raises `UsageError` or `OutputError` for files that cannot be written, before a long run begins.

    `outputs` maps options to files, or to None if not given. One of the options in `printable` may be ``-`` (stdout).
    `read` lists files that must not be overwritten.
    """
    given = {option: path for option, path in outputs.items() if path is not None}
    printed = [option for option, path in given.items() if path == STDOUT]
    for option in printed:
        if option not in printable:
            raise UsageError(f"{option} needs a file: only {' and '.join(printable)} can be printed")
    if len(printed) > 1:
        raise UsageError(f"only one of {' and '.join(printed)} can be printed; give a file for the other")
    taken = {Path(path).resolve(): path for path in read}
    for option, path in given.items():
        if option in printed:
            continue
        _check_writable(Path(path))
        if Path(path).resolve() in taken:
            raise UsageError(f"{option} {path} would overwrite {taken[Path(path).resolve()]}; give another file")
        taken[Path(path).resolve()] = f"what {option} writes"


def write_report(text: Render, *forms: tuple[str | None, Render]) -> None:
    """Prints the form of a report whose file is ``-``, else `text`, and writes the other forms to their files. Each
    file is written completely or not at all. A failed write does not stop the others.
    """
    printed = next((render for path, render in forms if path == STDOUT), text)
    with ExitStack() as last:
        for path, render in forms:
            if path is not None and path != STDOUT:
                last.callback(_write, Path(path), render)
        last.callback(lambda: click.echo(printed(), nl=False))  # runs first


def _write(path: Path, render: Render) -> None:
    if _is_channel(path):
        path.write_text(render(), encoding="utf-8")
    else:
        write_atomically(path.resolve(), render())  # a link stays one


def _is_channel(path: Path) -> bool:
    """Whether `path` is a pipe or a device, such as /dev/stderr, which must not be replaced by a file."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _check_writable(path: Path) -> None:
    folder = path.resolve().parent
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if not folder.is_dir():
        raise OutputError(f"{path}: its folder does not exist; make it first")
    if _is_channel(path):
        return
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: nothing can be written to {folder} ({reason}); name another folder") from None
