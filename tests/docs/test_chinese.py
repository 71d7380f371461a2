"""The Chinese documents state what the English ones do: the same sections, commands, tables and names in code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.documents import ROOT, blocks

TRANSLATED = sorted((ROOT / "docs").glob("*.zh-CN.md"))
_FENCED = re.compile(r"^```.*?^```\n", re.MULTILINE | re.DOTALL)


def original(document: Path) -> Path:
    return document.with_name(document.name.replace(".zh-CN", ""))


def prose(document: Path) -> str:
    return _FENCED.sub("", document.read_text(encoding="utf-8"))


def headings(document: Path) -> list[str]:
    return re.findall(r"^(#+) ", prose(document), re.MULTILINE)


def in_code(document: Path) -> set[str]:
    """What stands between backticks: names, options, values."""
    return {" ".join(name.split()) for name in re.findall(r"`([^`]+)`", prose(document))}


def rows(document: Path) -> list[int]:
    """How many cells each row of each table has."""
    return [line.replace(r"\|", "").count("|") for line in prose(document).splitlines() if line.startswith("|")]


@pytest.mark.parametrize("document", TRANSLATED, ids=lambda path: path.name)
def test_the_sections_are_the_same(document: Path) -> None:
    assert headings(document) == headings(original(document))


@pytest.mark.parametrize("document", TRANSLATED, ids=lambda path: path.name)
def test_the_commands_are_the_same(document: Path) -> None:
    runnable = [block for block in blocks(original(document)) if block[0] in ("sh", "python")]
    assert [block for block in blocks(document) if block[0] in ("sh", "python")] == runnable


@pytest.mark.parametrize("document", TRANSLATED, ids=lambda path: path.name)
def test_the_tables_have_the_same_rows(document: Path) -> None:
    assert rows(document) == rows(original(document))


@pytest.mark.parametrize("document", TRANSLATED, ids=lambda path: path.name)
def test_the_same_names_stand_in_code(document: Path) -> None:
    assert in_code(document) ^ in_code(original(document)) == set()
