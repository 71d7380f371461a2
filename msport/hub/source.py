"""A checkpoint and where it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint in `folder`; `id` is its Hub id or the absolute folder, `revision` the Hub's commit if any."""

    folder: Path
    id: str
    revision: str | None = None
