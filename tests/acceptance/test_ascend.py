"""The one command of an NPU's owner: refused without an NPU, and tried here on the CPU as far as that goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs.documents import ROOT

from acceptance import ascend
from acceptance.contracts import CONTRACTS
from acceptance.golden import FAMILIES, KEPT, load, path
from acceptance.operators import _CASES
from msport.child import call_in_child
from msport.errors import UsageError

SCRIPT = ROOT / "tests" / "acceptance" / "ascend.py"


def make_acceptance() -> subprocess.CompletedProcess[str]:
    command = ["make", "-s", "ascend-acceptance", f"ACCEPTANCE_PYTHON={sys.executable}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3600)


@pytest.mark.ahead("acceptance.test_ascend:make_acceptance")
def test_without_an_npu_a_line_says_so_and_the_exit_code_is_2(
    ahead: Callable[[], subprocess.CompletedProcess[str]],
) -> None:
    done = ahead()
    assert done.returncode == 2
    first, *rest = done.stderr.splitlines()
    assert first.startswith("ascend-acceptance: there is no Ascend NPU here (MindSpore computes on CPU)")
    assert all(line.startswith("make") for line in rest)


def test_the_report_of_an_earlier_run_does_not_keep_make_from_running_again(tmp_path: Path) -> None:
    (tmp_path / "ascend-acceptance").mkdir()
    command = ["make", "-n", "-f", str(ROOT / "Makefile"), "ascend-acceptance"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "tests/acceptance/ascend.py" in done.stdout


@pytest.mark.slow
def test_the_script_itself_passes_on_the_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--rehearse", "--family", "gpt-oss", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["schema"] == "msport.ascend-acceptance/1"
    assert report["rehearsal"] is True
    assert [(r["name"], r["operators"]) for r in report["results"]] == [
        ("gpt-oss", "portable"),
        ("gpt-oss", "cpu"),
        ("gpt-oss, mxfp4", "portable"),
        ("gpt-oss, mxfp4", "cpu"),
    ]
    assert {check["name"] for check in report["doctor"]["checks"]} >= {"CANN", "NPU driver", "npu-smi"}


@pytest.mark.slow
def test_every_family_passes_on_the_cpu(tmp_path: Path) -> None:
    assert ascend.main(["--rehearse", "--output", str(tmp_path)]) == 0


def test_wrong_logits_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    golden = load("Llama")
    decoded = golden.logits[-ascend.DECODED :]
    found = {"chunks": golden.logits.tolist(), "decoded": decoded.tolist(), "dtype": "bfloat16"}
    monkeypatch.setattr(ascend, "call_in_child", lambda *_, **__: found)
    good = ascend._family("Llama", "plain", tmp_path, "ascend", "bfloat16", golden)
    assert good["passed"]
    assert good["error"] == 0
    found["decoded"] = (decoded * 1.5).tolist()
    assert not ascend._family("Llama", "plain", tmp_path, "ascend", "bfloat16", golden)["passed"]
    found["decoded"][0][0] = float("nan")
    assert not ascend._family("Llama", "plain", tmp_path, "ascend", "bfloat16", golden)["passed"]


def test_a_crash_is_a_failed_line_and_not_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def crash(*_: object, **__: object) -> None:
        raise UsageError("the device was lost")

    monkeypatch.setattr(ascend, "call_in_child", crash)
    result = ascend._family("Llama", "plain", tmp_path, "ascend", "bfloat16", load("Llama"))
    assert not result["passed"]
    assert "the device was lost" in ascend._line(result)
    assert "FAIL" in ascend._line(ascend._operators("float16")[0])


def test_every_operator_is_tried_alone() -> None:
    assert set(_CASES) == {contract.function for contract in CONTRACTS}


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_logits_are_small_and_whole(family: str) -> None:
    golden = load(family)
    assert path(family).stat().st_size < 25_000
    assert golden.logits.shape[0] == KEPT
    assert np.isfinite(golden.logits).all()
    assert 0 < golden.errors["bfloat16"] < 0.1
    assert golden.transformers.startswith("4.57")


def infer(dtype: str) -> dict[str, Any]:
    errors: dict[str, Any] = call_in_child(
        "acceptance.inferred:operator_errors", {"dtype": dtype}, task="inferring the operators"
    )
    return errors


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(dtype, marks=pytest.mark.ahead("acceptance.test_ascend:infer", dtype))
        for dtype in ("bfloat16", "float16")
    ],
)
def test_the_graph_of_every_operator_is_inferred_and_agrees_with_its_contract(
    dtype: str, ahead: Callable[[], dict[str, Any]]
) -> None:
    errors = ahead()
    assert set(errors) == set(_CASES)
    for name, error in errors.items():
        assert isinstance(error, float), f"{name}: {error}"
        assert error < 1e-6, name
