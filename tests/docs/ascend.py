"""The table of docs/ascend.md: which parts of a model are fused. ``python tests/docs/ascend.py`` prints it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures import ARCHITECTURES

_COLUMNS = (
    "attention",
    "RMSNorm",
    "RoPE",
    "cache update",
    "quantised layers",
    "expert sorting",
    "expert products",
    "expert activation",
    "expert router",
)


def table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """`reports` are those of ``msmodels.ascend_families.check_all``, by model type."""
    rows = [f"| model | graph | {' | '.join(_COLUMNS)} |", f"|{'---|' * (len(_COLUMNS) + 2)}"]
    titles = {family.model_type: family.title for family in ARCHITECTURES.values()}
    for name, report in reports.items():
        model_type, _, packed = name.partition(", ")
        title = titles[model_type] + (f", {packed}" if packed else "")
        for graph in report["graphs"]:
            cells = [_cell(graph["parts"], column) for column in _COLUMNS]
            rows.append(f"| {title} | {graph['name']} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(parts: list[Mapping[str, Any]], name: str) -> str:
    for part in parts:
        if part["name"] == name:
            return ", ".join(f"`{operator}`" for operator in part["operators"]) or "composed"
    return ""


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from msmodels.ascend_families import check_all

    print(table(check_all("bfloat16")))
