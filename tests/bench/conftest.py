from __future__ import annotations

from pathlib import Path

import pytest

from msport import convert_checkpoint
from msport.sample import write_sample


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted gpt-oss of two layers. Shared: copy it before changing it."""
    folder = tmp_path_factory.mktemp("bench")
    write_sample("gpt-oss", folder / "source", overrides={"num_hidden_layers": 2, "vocab_size": 512})
    convert_checkpoint(folder / "source", folder / "converted", dtype="float32")
    return folder / "converted"
