"""The folders of the package import only what stands below them in docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import msport

PACKAGE = Path(msport.__file__).parent
DOCUMENT = PACKAGE.parent / "docs/architecture.md"
# The table of folders, from top to bottom.
ROWS = re.findall(r"^\| `(\w+)/` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
LEVEL = {folder: number for number, folder in enumerate(ROWS)}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("msport."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "msport":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("msport."))


def test_every_folder_stands_in_the_document() -> None:
    assert set(LEVEL) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


@pytest.mark.parametrize("folder", LEVEL)
def test_imports_run_down_the_list(folder: str) -> None:
    upward = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in (PACKAGE / folder).rglob("*.py")
        for name in _imported(path)
        if name in LEVEL and name != folder and LEVEL[name] <= LEVEL[folder]
    }
    assert not upward
