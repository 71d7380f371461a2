"""The modules of validate import one another in one direction, those that only a type checker reads included."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import msport.validate

FOLDER = Path(msport.validate.__file__).parent
PREFIX = "msport.validate."
PATHS = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): path
    for path in FOLDER.rglob("*.py")
    if path.stem != "__init__"
}


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            # `from msport.validate import golden` names modules, `from msport.validate.golden import Golden` is in one.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {name[len(PREFIX) :] for name in names if name.startswith(PREFIX)}
    return found & PATHS.keys()


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {name: _imported(path) for name, path in PATHS.items()}
    assert graph["report"] >= {"views.document", "findings", "views.text"}, "imports are found"
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert order.index("findings") < order.index("views.text") < order.index("report")
