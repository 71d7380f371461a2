from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from msport import convert_checkpoint
from msport.sample import write_sample


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted gpt-oss. Shared: take `copied` to change it."""
    folder = tmp_path_factory.mktemp("doctor")
    write_sample("gpt-oss", folder / "source")
    convert_checkpoint(folder / "source", folder / "converted")
    return folder / "converted"


@pytest.fixture
def copied(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "copied"))
