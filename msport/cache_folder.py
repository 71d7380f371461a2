"""The folder where msport keeps what it compiles."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``MSPORT_CACHE``, by default ``~/.cache/msport``. Raises RuntimeError for a user without a home."""
    if stated := os.environ.get("MSPORT_CACHE"):
        return Path(stated)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msport"
