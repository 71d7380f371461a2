"""A part of the experiment behind the pass rule: right ports pass, planted faults fail where they were planted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.reference]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "verdict.py"


def _run(*arguments: str) -> dict[str, Any]:
    pytest.importorskip("transformers")
    child = subprocess.run([sys.executable, str(BENCHMARK), *arguments], capture_output=True, text=True, timeout=3600)
    print(child.stdout)
    assert child.returncode == 0, child.stdout + child.stderr
    document: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return document


def test_right_ports_raise_no_alarm() -> None:
    rows = _run("--right", "--share", "3/40")["right"]
    assert len(rows) == 5
    assert len({row["kind"] for row in rows}) > 1
    assert all(row["passed"] for row in rows)


@pytest.mark.parametrize("family", ["llama", "gpt-oss"])
def test_planted_faults_fail_where_they_were_planted(family: str) -> None:
    rows = _run("--faults", "--family", family)["faults"]
    assert len(rows) >= 10
    assert not any(row["passed"] for row in rows)
    assert all(row["located"] for row in rows)
