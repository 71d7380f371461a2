from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from msport.sample import write_sample


@pytest.fixture(scope="session")
def packed_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny gpt-oss with MXFP4 experts. Shared: copy it before changing it."""
    return write_sample("gpt-oss", tmp_path_factory.mktemp("samples") / "packed", overrides={"num_hidden_layers": 2})


@pytest.fixture(scope="session")
def wide_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny gpt-oss in float32. Shared: copy it before changing it."""
    return write_sample(
        "gpt-oss", tmp_path_factory.mktemp("samples") / "wide", overrides={"num_hidden_layers": 2}, dtype="float32"
    )


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """Copies a sample into a folder that the test may change."""

    def copy(sample: Path) -> Path:
        return Path(shutil.copytree(sample, tmp_path / f"copy-of-{sample.name}"))

    return copy
