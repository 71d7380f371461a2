"""docs/environment.md lists the variables that the package reads, and no other of msport's own."""

from __future__ import annotations

import re

from docs.documents import ROOT

PACKAGE = ROOT / "msport"
DOCUMENT = ROOT / "docs" / "environment.md"
_READ = re.compile(r"""(?:environ\.get\(|environ\[|getenv\()"([A-Z_]+)"|"([A-Z_]+)"(?: not)? in (?:os\.)?environ""")
_OWN = re.compile(r"\bMSPORT_[A-Z_]+\b")


def read_by_the_package() -> set[str]:
    """Names of variables that the sources of `msport` look up."""
    sources = [path for suffix in ("py", "cpp", "h") for path in PACKAGE.rglob(f"*.{suffix}")]
    return {
        name
        for path in sources
        for groups in _READ.findall(path.read_text(encoding="utf-8"))
        for name in groups
        if name
    }


def documented() -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}


def test_every_variable_that_the_package_reads_is_in_the_table() -> None:
    assert read_by_the_package() - documented() == set()


def test_every_variable_of_msport_in_the_table_is_read_by_the_package() -> None:
    own = {name for name in documented() if _OWN.fullmatch(name)}
    assert own
    assert own == {name for name in read_by_the_package() if _OWN.fullmatch(name)}


def test_no_document_names_a_variable_of_msport_that_the_table_lacks() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        assert set(_OWN.findall(document.read_text(encoding="utf-8"))) <= documented(), document.name
