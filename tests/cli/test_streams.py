"""Closed standard streams neither end a command nor lend their descriptors to files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.command import Run

SCRIPT = """
import os, sys
for descriptor in range(3):
    os.close(descriptor)
sys.stdin = sys.stdout = sys.stderr = None
from msport.cli.streams import open_closed_streams
open_closed_streams()
with open(sys.argv[1], "w") as file:
    print(file.fileno(), file=file)
print("to stdout")
print("to stderr", file=sys.stderr, flush=True)
os.write(2, b"as a library in C writes")
"""


def test_no_file_takes_the_descriptor_of_a_closed_stream(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert subprocess.run([sys.executable, "-c", SCRIPT, str(file)]).returncode == 0
    assert file.read_text(encoding="utf-8") == "3\n"


def test_a_command_runs_with_closed_streams(msport: Run, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    monkeypatch.setattr("sys.stdout", None)
    assert msport("inspect", sample).status == 0
    assert sys.stdout is not None
    assert sys.stderr.isatty() is False
