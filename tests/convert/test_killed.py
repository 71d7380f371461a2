"""Conversions killed with SIGKILL at random moments; `killing` says what holds each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from convert import killing
from msport.sample import write_sample


def kill(model: Path, folder: Path, kills: int, seed: int, file_format: str = "safetensors") -> dict[str, int]:
    command = [sys.executable, killing.__file__, str(model), str(folder), str(kills), str(seed), file_format]
    child = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    assert child.returncode == 0, child.stderr
    tally: dict[str, int] = json.loads(child.stdout)
    print(tally)
    assert tally["killed"] == kills
    assert tally["finished"] > 0
    assert tally["resumed with work done"] > kills / 4
    return tally


def test_a_killed_conversion_resumes_to_the_same_bytes(packed_sample: Path, tmp_path: Path) -> None:
    kill(packed_sample, tmp_path, kills=15, seed=0)


def test_a_conversion_that_keeps_the_files_resumes_too(tmp_path: Path) -> None:
    model = write_sample("qwen3", tmp_path / "model", max_shard_size="200kB")
    (tmp_path / "work").mkdir()
    kill(model, tmp_path / "work", kills=8, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_two_hundred_kills(packed_sample: Path, tmp_path: Path, file_format: str) -> None:
    kill(packed_sample, tmp_path, kills=200, seed=2, file_format=file_format)
