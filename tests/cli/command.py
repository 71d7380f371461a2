"""A command line run in the test's own process, and what a refusal looks like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


def assert_refused(result: Result, output: Path, *parts: str, kept: bool = False) -> None:
    """One line on stderr that says all `parts`, exit 2, nothing on stdout, and nothing where the output would be.

    With `kept`, beside it lies what had been done, and the line says how to go on.
    """
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("msport: error: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err
    assert "internal error" not in result.err
    for part in parts:
        assert part in result.err
    assert not output.exists()
    partial = output.parent / f".{output.name}.msport-partial"
    assert list(output.parent.glob("*")) == ([partial] if kept else [])
    hint = f"; what is done is kept: run the same command again to go on, or remove {partial}\n"
    assert result.err.endswith(hint) is kept
