"""Fixtures: the command line, and a sample that a test may break."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.command import Result, Run
from msport.cli import main


@pytest.fixture
def msport(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line through the real entry point."""

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        status = end.value.code
        return Result(status if isinstance(status, int) else 1, *capsys.readouterr())

    return run


@pytest.fixture
def model(sample: Path, tmp_path: Path) -> Path:
    """A sample that the test may break."""
    return Path(shutil.copytree(sample, tmp_path / "model"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "model-ms"
