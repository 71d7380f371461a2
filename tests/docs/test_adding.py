"""What docs/adding-a-model.md and docs/adding-an-encoding.md show is a whole addition: applied to a copy of msport, it
passes its own tests.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.documents import ROOT, blocks

MODEL, ENCODING = (ROOT / "docs" / f"adding-{name}.md" for name in ("a-model", "an-encoding"))
TIMEOUT_SECONDS = 3600


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its tests with the documents' files and changes in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("msport", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for document in (MODEL, ENCODING):
        for path, text in shown_files(document).items():
            assert not (folder / path).exists(), f"{path}: msport has it already; the page needs another example"
            (folder / path).write_text(text, encoding="utf-8")
        for diff in shown("diff", document):
            run(["git", "apply", "--recount", "-"], folder, diff)
    return folder


def shown(language: str, document: Path) -> list[str]:
    return [text for found, text in blocks(document) if found == language]


def shown_files(document: Path) -> dict[str, str]:
    """Path to content: each block of Python is the file that the sentence before it names last."""
    pieces = re.split(r"^```python\n(.*?)^```", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    paths = [re.findall(r"`([\w/]+\.py)`", prose)[-1] for prose in pieces[:-1:2]]
    return dict(zip(paths, pieces[1::2], strict=True))


def run(command: list[str], folder: Path, text: str | None = None) -> str:
    """What `command` prints when it is run in `folder` on the msport that lies there."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, input=text, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{text or ''}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_shown_files_are_in_the_style_of_the_house(checkout: Path) -> None:
    pytest.importorskip("ruff")
    files = [*shown_files(MODEL), *shown_files(ENCODING)]
    run([sys.executable, "-m", "ruff", "check", *files], checkout)
    run([sys.executable, "-m", "ruff", "format", "--check", *files], checkout)


def test_the_copy_and_not_the_installed_package_knows_the_family(checkout: Path) -> None:
    question = "import msport; from msport.architectures import ARCHITECTURES; print(msport.__file__, *ARCHITECTURES)"
    where, *names = run([sys.executable, "-c", question], checkout).split()
    assert Path(where).is_relative_to(checkout)
    assert "SeedOssForCausalLM" in names


def test_the_encoding_s_own_test_passes(checkout: Path) -> None:
    (command,) = shown("sh", ENCODING)
    assert re.search(r"1 passed in", run(["sh", "-ec", command], checkout))


@pytest.mark.slow
@pytest.mark.reference
def test_the_shown_commands_succeed(checkout: Path) -> None:
    pytest.importorskip("transformers")
    commands = [line for text in shown("sh", MODEL) for line in text.splitlines()]
    printed = {command: run(["sh", "-ec", command], checkout) for command in commands}
    parity, *_ = commands
    assert re.search(r"^=+ \d+ passed in", printed[parity], re.MULTILINE), "a parity test was skipped"
