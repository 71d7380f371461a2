"""docs/api.md names everything that msport exports, with the signatures of the code."""

from __future__ import annotations

import inspect
import re

import pytest

import msport
from docs import api
from docs.documents import ROOT, blocks

DOCUMENT = ROOT / "docs" / "api.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
SHOWN = [text.rstrip("\n") for language, text in blocks(DOCUMENT) if language == "py"]
REMEDY = "docs/api.md shows another signature: python tests/docs/api.py prints the one of the code"


def section(title: str) -> str:
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/api.md has no section {title}"
    return found[1]


def test_everything_exported_has_its_place() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", section("Errors"), re.MULTILINE))
    listed |= set(re.findall(r"^## (\w+)$", TEXT, re.MULTILINE))
    assert set(msport.__all__) - {"__version__"} - listed == set()


@pytest.mark.parametrize("name", [name for name, value in api.exported().items() if inspect.isfunction(value)])
def test_a_function_is_shown_with_its_signature_and_every_argument(name: str) -> None:
    function = api.exported()[name]
    assert f"```py\n{api.signature(function, name)}\n```" in section(name), REMEDY
    for argument in inspect.signature(function).parameters:
        assert f"`{argument}`" in section(name), argument


@pytest.mark.parametrize("owner", api.TYPES, ids=lambda owner: owner.__name__)
def test_a_class_is_shown_with_all_that_is_public(owner: type) -> None:
    text = section(owner.__name__)
    assert "```py\n" + "\n".join(api.members(owner)) + "\n```" in text, REMEDY
    for attribute in api.attributes(owner):
        assert re.search(rf"\b{attribute}\b", text), attribute


def test_the_errors_are_those_of_the_package() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section("Errors"), re.MULTILINE) == api.raised()


def test_no_signature_is_shown_that_the_code_does_not_have() -> None:
    functions = [api.signature(value, name) for name, value in api.exported().items() if inspect.isfunction(value)]
    assert sorted(SHOWN) == sorted([*functions, *("\n".join(api.members(owner)) for owner in api.TYPES)])
