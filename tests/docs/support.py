"""The support table of the READMEs, from the registry: ``python tests/docs/support.py`` prints it."""

from __future__ import annotations

from msport.architectures import ARCHITECTURES


def table() -> str:
    rows = ["| architecture | models | what is computed |", "|---|---|---|"]
    rows += [f"| `{a.name}` | {', '.join(a.models)} | {', '.join(a.features)} |" for a in ARCHITECTURES.values()]
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
