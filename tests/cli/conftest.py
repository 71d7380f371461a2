"""Fixtures: the command line, and a sample to convert."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cli.command import Result, Run
from msport.cli import main
from msport.sample import write_sample


@pytest.fixture
def msport(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line through the real entry point."""

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        status = end.value.code
        return Result(status if isinstance(status, int) else 1, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("gpt-oss", tmp_path_factory.mktemp("samples") / "model", overrides={"num_hidden_layers": 2})


@pytest.fixture
def model(pristine: Path, tmp_path: Path) -> Path:
    """A sample that the test may break."""
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "model-ms"
