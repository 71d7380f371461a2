"""Every message that docs/troubleshooting.md quotes is one that msport prints."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest

from docs.documents import ROOT

DOCUMENT = ROOT / "docs" / "troubleshooting.md"
QUOTED = re.findall(r"^\| `(.+?)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)


@cache
def messages() -> tuple[str, ...]:
    """Every text in the package, with ``\\0`` where a value is put in, and the lines of the Makefile."""
    sources = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "msport").rglob("*.py")]
    return (*(text for source in sources for text in _texts(source)), (ROOT / "Makefile").read_text(encoding="utf-8"))


def _texts(source: ast.Module) -> Iterator[str]:
    for node in ast.walk(source):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sd]", "\0", node.value)


def matches(quoted: str) -> bool:
    """Whether one message holds the parts of `quoted` in their order, with nothing but values between them."""
    pattern = re.compile(r".*".join(re.escape(part.strip()) for part in quoted.split("...")))
    return any(pattern.search(text) for text in messages())


def test_the_document_quotes_messages() -> None:
    assert len(QUOTED) > 30
    assert len(set(QUOTED)) == len(QUOTED)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_message_stands_in_the_code(quoted: str) -> None:
    assert len(quoted.replace("...", "").strip()) > 10, "too short to tell one message from another"
    assert matches(quoted)


def test_a_message_that_is_never_printed_is_detected() -> None:
    assert not matches("the moon is in the way")
    assert not matches("no such folder, nor a ... repository")
