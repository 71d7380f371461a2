"""Every command and every piece of Python in the documents runs; every link leads somewhere; the languages agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.documents import DOCUMENTS, ROOT, blocks
from docs.support import chinese_table, table

TIMEOUT_SECONDS = 600
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


@pytest.mark.reference
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_runs_in_the_order_of_the_document(document: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for language, text in blocks(document):
        command = {"sh": ["sh", "-ec", text], "python": [sys.executable, "-c", text]}.get(language)
        if command is None:
            continue
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_chinese_readme_shows_the_same_commands() -> None:
    runnable = [block for block in blocks(README) if block[0] in ("sh", "python")]
    assert [block for block in blocks(CHINESE) if block[0] in ("sh", "python")] == runnable


@pytest.mark.parametrize(("readme", "shown"), [(README, table()), (CHINESE, chinese_table())], ids=["en", "zh"])
def test_the_support_table_is_what_the_registry_says(readme: Path, shown: str) -> None:
    assert shown in readme.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
