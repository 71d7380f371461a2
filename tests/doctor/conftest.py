from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def copied(converted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "copied"))
