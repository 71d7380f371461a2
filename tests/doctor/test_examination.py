"""The whole examination, on this machine and on broken ones: a broken package lies on the path before the real one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from msport.doctor import Check, Status, device, diagnose
from msport.doctor.device import check_dtype, check_multiply, check_train


def _broken_mindspore(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mindspore").mkdir()
    (folder / "mindspore" / "__init__.py").write_text(body)
    monkeypatch.syspath_prepend(folder)


def _find(checks: tuple[Check, ...], name: str) -> Check:
    (check,) = (check for check in checks if check.name == name)
    return check


def test_a_working_machine_passes_every_check_that_computes() -> None:
    reported: list[Check] = []
    diagnosis = diagnose(report=reported.append)
    assert tuple(reported) == diagnosis.checks
    assert _find(diagnosis.checks, "device").status is Status.PASS
    assert "agrees with NumPy" in _find(diagnosis.checks, "graph mode").finding
    assert "agrees with NumPy" in _find(diagnosis.checks, "training step").finding
    assert diagnosis.passed


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        ("raise ImportError('libge_runner.so: cannot open')", "failed: ImportError: libge_runner.so: cannot open"),
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import time; time.sleep(600)", "did not end within 3 s"),
    ],
    ids=["raises", "crashes", "hangs"],
)
def test_a_broken_mindspore_is_a_failed_line_and_the_rest_is_still_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, finding: str
) -> None:
    _broken_mindspore(tmp_path, body, monkeypatch)
    diagnosis = diagnose(timeout=3)
    broken = _find(diagnosis.checks, "device")
    assert broken.status is Status.FAIL
    assert finding in broken.finding
    assert broken.remedy is not None
    assert not diagnosis.passed
    assert {"NumPy", "memory", "disk", "CANN"} <= {check.name for check in diagnosis.checks}
    assert "graph mode" not in {check.name for check in diagnosis.checks}


@pytest.mark.parametrize("error", [0.5, math.nan])
def test_a_device_that_computes_wrongly_fails(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    monkeypatch.setattr(device, "call_in_child", lambda function, arguments, **options: error)
    for check in (check_multiply(timeout=1), check_train(timeout=1)):
        assert check.status is Status.FAIL
        assert "is wrong: relative error" in check.finding


def test_a_dtype_that_the_device_lacks_fails() -> None:
    cpu = device.Device("CPU", 0, 1, None, "float32", "MindSpore has no bfloat16 kernels on CPU")
    check = check_dtype(cpu, "bfloat16")
    assert check.status is Status.FAIL
    assert check.remedy == "leave --dtype out: float32 is what this device does best"
