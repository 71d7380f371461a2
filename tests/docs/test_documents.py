"""Every command and every piece of Python in the documents runs; every link leads somewhere; the languages agree."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from docs.documents import DOCUMENTS, ROOT, blocks
from msport.architectures import ARCHITECTURES
from msport.msmodels.tokenizer import load_tokenizer
from msport.sample.chat import chat_format
from msport.sample.tokenizers import tokenizer_files

TIMEOUT_SECONDS = 3600
RUN = ("sh", "shell", "python")
README, CHINESE = ROOT / "README.md", ROOT / "README.zh-CN.md"


def _run_ahead(document: Path) -> Any:
    mark = pytest.mark.ahead("docs.test_documents:run_blocks", document)
    return pytest.param(document, id=document.name, marks=mark)


@pytest.mark.reference
@pytest.mark.parametrize("document", [_run_ahead(document) for document in DOCUMENTS])
def test_every_block_runs_in_the_order_of_the_document(document: Path, ahead: Callable[[], None]) -> None:
    pytest.importorskip("transformers")
    ahead()


def run_blocks(document: Path) -> None:
    with TemporaryDirectory() as folder:
        for language, text in blocks(document):
            command = {"sh": ["sh", "-ec", text], "python": [sys.executable, "-c", text]}.get(language)
            if command is not None:
                run(*command, folder=Path(folder))


def run(*command: str, folder: Path) -> str:
    """What `command` prints in `folder`; fails with all of it where the command does."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONUTF8": "1"}  # in the C locale `print` refuses what a model says
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.reference
def test_the_commands_of_the_readme_on_a_published_model_end_in_its_answer(tmp_path: Path) -> None:
    """Blocks of ``shell`` need PyPI and a minute or two."""
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (commands,) = (text for language, text in blocks(README) if language == "shell")
    printed = run("sh", "-ec", commands, folder=tmp_path)
    assert "smollm2-ms: LlamaForCausalLM, bfloat16, safetensors\n  272 tensors, 269 MB in 1 shard" in printed
    assert "\nPASSED: " in printed
    assert printed.endswith("\nThe capital of France is Paris.\n")


def test_the_chinese_readme_shows_the_same_commands() -> None:
    runnable = [block for block in blocks(README) if block[0] in RUN]
    assert [block for block in blocks(CHINESE) if block[0] in RUN] == runnable


@pytest.mark.parametrize("readme", [README, CHINESE], ids=["en", "zh"])
def test_the_support_table_has_a_row_for_every_architecture(readme: Path) -> None:
    rows = re.findall(r"^\| `(\w+ForCausalLM)` \|", readme.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(ARCHITECTURES)


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_the_loop_of_the_readme_prints_whole_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in tokenizer_files(chat_format("qwen2"), 1024)[0].items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer is not None
    answer = tokenizer.encode("龘 你好 \U0001f600!")
    assert any("\N{REPLACEMENT CHARACTER}" in tokenizer.decode([token]) for token in answer)
    model = SimpleNamespace(tokenizer=tokenizer, generate=lambda *_, **__: iter(answer))
    (python,) = (text for language, text in blocks(README) if language == "python")
    (loop,) = re.findall(r"^text = model.*?^print\(.*?$", python, re.MULTILINE | re.DOTALL)
    exec(loop, {"model": model})
    assert capsys.readouterr().out == "龘 你好 \U0001f600!\n"
