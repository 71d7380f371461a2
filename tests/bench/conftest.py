from __future__ import annotations

from pathlib import Path

import pytest

from bench.measured import make_tiny


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted gpt-oss of two layers. Shared: copy it before changing it."""
    return make_tiny(tmp_path_factory.mktemp("bench"))
