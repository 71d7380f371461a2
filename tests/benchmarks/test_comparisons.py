"""The benchmarks beside Transformers run to the end and compare like with like; their figures are not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ONCE = ("--rounds", "1")


def run(name: str, *arguments: str, folder: Path) -> dict[str, Any]:
    """The document in the last line that benchmark `name` prints."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments, "--folder", str(folder)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert child.returncode == 0, child.stderr
    document: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    assert document["benchmark"] == name
    assert not list(folder.iterdir()), "the benchmark left something behind"
    return document


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("packed", [[], ["--packed"]], ids=["float32", "packed"])
def test_decode_gives_the_tokens_that_transformers_gives(packed: list[str], tmp_path: Path) -> None:
    options = ("--model", "gpt-oss", *packed, *ONCE, "--repeats", "1", "--warmup", "1")
    document = run("decode", *options, folder=tmp_path)
    assert document["same_tokens"]
    assert all(ratio > 0 for ratio in document["times_as_fast"]["decode"])


@pytest.mark.slow
def test_compile_finds_its_graphs_in_the_cache(tmp_path: Path) -> None:
    document = run("compile", "--layers", "1", "3", *ONCE, folder=tmp_path)
    assert [depth["layers"] for depth in document["depths"]] == [1, 3]
    assert all(depth["graphs_from_cache"] for depth in document["depths"])


@pytest.mark.slow
def test_a_layer_of_full_size_runs_with_packed_experts(tmp_path: Path) -> None:
    document = run("bench_full", "--layers", "1", "--new-tokens", "4", "--repeats", "1", folder=tmp_path)
    assert document["packed"]
    assert document["decode_seconds"] > 0
