"""The modules of validate import one another in one direction, those that only a type checker reads included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import msport.validate

FOLDER = Path(msport.validate.__file__).parent
PREFIX = "msport.validate."


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from msport.validate import golden` names modules, `from msport.validate.golden import Golden` is in one.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name[len(PREFIX) :].partition(".")[0] for name in names if name.startswith(PREFIX)}
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {path.stem: _imported(path) for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    assert graph["report"] >= {"document", "findings", "text"}, "imports are found"
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("findings") < order.index("text") < order.index("report")
