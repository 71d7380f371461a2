"""The code blocks of the documents. ``sh`` and ``python`` blocks are run by the tests; ``text`` blocks are not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN_ELSEWHERE = {"adding-a-model.md", "adding-an-encoding.md"}  # by test_adding.py
ENGLISH = sorted(path for path in (ROOT / "docs").glob("*.md") if not path.name.endswith(".zh-CN.md"))
DOCUMENTS = [ROOT / "README.md", *(path for path in ENGLISH if path.name not in RUN_ELSEWHERE)]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block that names its language, in order."""
    return _BLOCK.findall(document.read_text(encoding="utf-8"))
