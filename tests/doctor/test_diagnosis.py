"""All checks, on this machine and on broken ones: a broken package lies on the path before the real one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from bench.schemas import check_schema

from msport.device import Device
from msport.doctor import Check, Status, device, diagnose, diagnosis
from msport.doctor.check import passed
from msport.doctor.device import check_dtype, check_multiply, check_train


def _broken_mindspore(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mindspore").mkdir()
    (folder / "mindspore" / "__init__.py").write_text(body)
    monkeypatch.syspath_prepend(folder)


def _find(checks: tuple[Check, ...], name: str) -> Check:
    (check,) = (check for check in checks if check.name == name)
    return check


@pytest.fixture
def nothing_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks that start MindSpore pass at once; tests/cli/test_doctor.py runs them all."""
    cpu = Device("CPU", 0, 1, None, None, "float32", {})
    monkeypatch.setattr(diagnosis, "check_device", lambda dtype, timeout: (cpu, passed("device", "CPU 0")))
    for name in ("check_multiply", "check_train", "check_compiler"):
        monkeypatch.setattr(diagnosis, name, lambda timeout, name=name: passed(name, "as if"))


@pytest.mark.usefixtures("nothing_computes")
def test_every_check_is_reported_when_it_is_made() -> None:
    reported: list[Check] = []
    made = diagnose(report=reported.append)
    assert tuple(reported) == made.checks
    assert {"device", "check_multiply", "check_train", "check_compiler"} <= {check.name for check in reported}
    assert made.fit is None
    check_schema(json.loads(made.to_json()), "doctor.schema.json")


@pytest.mark.parametrize(
    ("body", "timeout", "finding"),
    [
        ("raise ImportError('libge_runner.so: cannot open')", 60, "failed: ImportError: libge_runner.so: cannot open"),
        ("import os; os.abort()", 60, "crashed with SIGABRT"),
        ("import time; time.sleep(600)", 1, "did not end within 1 s"),
    ],
    ids=["raises", "crashes", "hangs"],
)
def test_a_broken_mindspore_is_a_failed_line_and_the_rest_is_still_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, timeout: float, finding: str
) -> None:
    _broken_mindspore(tmp_path, body, monkeypatch)
    made = diagnose(timeout=timeout)
    broken = _find(made.checks, "device")
    assert broken.status is Status.FAIL
    assert finding in broken.finding
    assert broken.remedy is not None
    assert not made.passed
    assert {"NumPy", "memory", "disk", "CANN"} <= {check.name for check in made.checks}
    assert "graph mode" not in {check.name for check in made.checks}


@pytest.mark.parametrize("error", [0.5, math.nan])
def test_a_device_that_computes_wrongly_fails(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    monkeypatch.setattr(device, "call_in_child", lambda function, arguments, **options: error)
    for check in (check_multiply(timeout=1), check_train(timeout=1)):
        assert check.status is Status.FAIL
        assert "is wrong: relative error" in check.finding


def test_a_dtype_that_the_device_lacks_fails() -> None:
    cpu = Device("CPU", 0, 1, None, None, "float32", {"bfloat16": "MindSpore has no bfloat16 kernels on CPU"})
    check = check_dtype(cpu, "bfloat16")
    assert check.status is Status.FAIL
    assert check.remedy == "leave --dtype out: float32 is what this device does best"


@pytest.mark.usefixtures("nothing_computes")
def test_a_model_on_an_npu_is_judged_by_what_is_free_there(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npu = Device("Ascend", 0, 8, 64 << 30, 10**8, "bfloat16", {})
    monkeypatch.setattr(diagnosis, "check_device", lambda dtype, timeout: (npu, passed("device", "Ascend 0")))
    made = diagnose(converted, max_length=64)
    assert "of 100 MB free device memory" in _find(made.checks, "fits").finding
    assert made.fit is not None
    assert made.fit.to_document()["free_nbytes"] == 10**8
