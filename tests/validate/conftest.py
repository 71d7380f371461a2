"""A tiny gpt-oss as the Hub ships it, and its conversion."""

from __future__ import annotations

from pathlib import Path

import pytest

from msport.convert import convert_checkpoint
from msport.sample import write_sample


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, window 24, MXFP4 experts. Shared: copy it before changing it."""
    return write_sample("gpt-oss", tmp_path_factory.mktemp("hub") / "tiny", overrides={"num_hidden_layers": 2})


@pytest.fixture(scope="session")
def converted(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sample` in bfloat16. Shared: copy it before changing it."""
    folder = tmp_path_factory.mktemp("converted") / "tiny-ms"
    convert_checkpoint(sample, folder)
    return folder
