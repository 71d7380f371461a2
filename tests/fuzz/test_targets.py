"""The fuzzers' checks on a few hundred inputs each; ``python -m fuzz`` tries a million."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, scratch_folder
from msport.checkpoint import safetensors

every_target = pytest.mark.parametrize("name", TARGETS)


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    with scratch_folder() as folder:
        yield Path(folder) / "input"


def check_seeds(name: str, path: Path) -> None:
    for seed in TARGETS[name].seeds:
        TARGETS[name].check(path, seed)


@every_target
def test_what_a_fuzzer_begins_with(name: str, path: Path) -> None:
    check_seeds(name, path)


@every_target
@settings(max_examples=100)
@given(content=st.binary(max_size=200))
def test_any_bytes(name: str, path: Path, content: bytes) -> None:
    TARGETS[name].check(path, content)


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A seed in which up to four runs of bytes are replaced by others, by words of the format, or by nothing."""
    content = draw(st.sampled_from(TARGETS[name].seeds))
    for _ in range(draw(st.integers(0, 4))):
        begin = draw(st.integers(0, len(content)))
        end = draw(st.integers(begin, min(begin + 8, len(content))))
        content = content[:begin] + draw(st.sampled_from(TARGETS[name].words) | st.binary(max_size=3)) + content[end:]
    return content


@every_target
@settings(max_examples=200)
@given(data=st.data())
def test_damaged_files(name: str, path: Path, data: st.DataObject) -> None:
    TARGETS[name].check(path, data.draw(mutated(name)))


def test_a_reader_that_accepts_too_much_is_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "_check_contiguous", lambda *arguments: None)
    with pytest.raises(AssertionError, match="only msport accepts it"):
        check_seeds("safetensors", path)


def test_a_reader_that_refuses_too_much_is_found_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safetensors, "_MAX_RANK", 1)
    with pytest.raises(AssertionError, match="only msport refuses it"):
        check_seeds("safetensors", path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs the extra fuzz")
def test_the_fuzzers_find_nothing_in_twenty_thousand_inputs(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "fuzz", "--runs", "20000", "--seed", "7"]
    child = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tests)}, capture_output=True, text=True)
    results = json.loads(child.stdout.splitlines()[-1])["fuzz"]
    assert all(result["passed"] and result["inputs"] >= 20_000 for result in results), child.stderr
    assert [result["target"] for result in results] == list(TARGETS)
    assert not list(tmp_path.iterdir())
