"""A conversion that does not finish: what is kept of it, and how to resume."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msport.cli import describe
from msport.cli.interruption import telling
from msport.convert import Conversion
from msport.convert.conversion import find_unfinished
from msport.convert.resume import kept_after
from msport.errors import OutputError
from msport.report.formatting import counted


@contextmanager
def resumable(conversion: Conversion) -> Iterator[None]:
    """If `conversion` does not finish, adds to the message what is kept and how to resume.

    Raises `OutputError` for an error after which something is kept.
    """
    kept: list[Path] = []
    with telling(lambda: _said(conversion, kept)):
        try:
            yield
        except BaseException as error:
            if found := kept_after(error):
                kept.append(found)
                if isinstance(error, Exception):
                    hint = f"what is done is kept: {_how_to_go_on(found)}"
                    raise OutputError(f"{describe(error)}; {hint}") from error
            raise


def _said(conversion: Conversion, kept: list[Path]) -> str:
    if not kept:
        return ""
    done, whole = len(find_unfinished(conversion).hashes), counted(len(conversion.plan.tensors), "tensor")
    return f"; {done} of {whole} are done: {_how_to_go_on(kept[0])}"


def _how_to_go_on(kept: Path) -> str:
    return f"run the same command again to go on, or remove {kept}"
