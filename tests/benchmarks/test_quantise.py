"""The benchmark of the quantiser runs and compares the errors of every encoding; its speeds are not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from msport.sample import write_sample

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "quantise.py"


def test_it_compares_the_errors_on_random_weights_and_on_a_model(tmp_path: Path) -> None:
    write_sample("llama", tmp_path / "tiny")
    command = [sys.executable, str(PROGRAM), "--rows", "64", "--columns", "128", "--rounds", "1"]
    done = subprocess.run([*command, "--model", str(tmp_path / "tiny")], check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    assert set(summary["errors"]) == {"Gaussian", "tiny"}
    for found in summary["errors"].values():
        assert found["int4"] < found["Q4_0"] < found["usual int4"]
        assert found["int8"] < found["Q8_0"]
        assert found["int4, offsets"] < found["int4"]
    assert set(summary["gb_per_s"]) > {"reading", "int4", "int8", "int4, NumPy"}
