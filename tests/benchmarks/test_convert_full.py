"""The benchmark of a whole gpt-oss-20b, on a small part of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "convert_full.py"


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, PROGRAM, "--folder", folder, *options], capture_output=True, text=True)


@pytest.mark.slow
def test_every_conversion_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    result = run(tmp_path, "--layers", "1", "--experts", "4", "--vocabulary", "1024")
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.iterdir())
    report = json.loads(result.stdout.splitlines()[-1])
    (model,) = report["models"]
    written = model["plain_writer"]["nbytes"]
    sizes = {kind: conversion["nbytes"] for kind, conversion in model["conversions"].items()}
    assert sizes.keys() == {"bfloat16", "bfloat16, .ckpt", "packed MXFP4"}
    assert 0 < sizes["bfloat16"] - written < 100_000  # the headers, the index and the manifest
    assert sizes["packed MXFP4"] < 0.5 * written
    assert 233e9 < report["plan_120b"]["output_nbytes"] < 235e9
    peaks = [conversion["peak_resident_nbytes"] for conversion in model["conversions"].values()]
    assert max(*peaks, report["plan_120b"]["peak_resident_nbytes"]) < 10**9


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    result = run(tmp_path, "--layers", "900")
    assert result.returncode == 1
    assert f"{tmp_path}: " in result.stderr
    assert "needed; name another by --folder, or fewer --layers" in result.stderr
    assert not list(tmp_path.iterdir())
