"""``msport doctor`` in a process of its own, on machines that are broken in several ways at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import jsonschema
import pytest
from bench.schemas import check_schema

from msport import convert_checkpoint
from msport.architectures import ARCHITECTURES
from msport.sample import write_sample


def _doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "msport", "doctor", "--timeout", "3600", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


def _broken_packages(folder: Path) -> str:
    """MindSpore that cannot be imported, and the metadata of NumPy 2, for PYTHONPATH."""
    (folder / "mindspore").mkdir()
    (folder / "mindspore" / "__init__.py").write_text("raise ImportError('libmindspore_core.so is missing')")
    (folder / "numpy-2.1.0.dist-info").mkdir()
    (folder / "numpy-2.1.0.dist-info" / "METADATA").write_text("Name: numpy\nVersion: 2.1.0\n")
    return str(folder)


def examine_this_machine() -> subprocess.CompletedProcess[str]:
    with TemporaryDirectory() as folder:
        write_sample("gpt-oss", Path(folder) / "source", overrides={"num_hidden_layers": 2})
        convert_checkpoint(Path(folder) / "source", Path(folder) / "converted")
        return _doctor(f"{folder}/converted")


@pytest.mark.ahead("cli.test_doctor:examine_this_machine")
def test_a_machine_that_can_do_the_work_exits_with_0(ahead: Callable[[], subprocess.CompletedProcess[str]]) -> None:
    result = ahead()
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    for name in ("device", "graph mode", "training step"):
        assert any(line.startswith(f"pass  {name}  ") for line in lines)
    assert sum("agrees with NumPy" in line for line in lines) == 2
    fits = ("pass  fits", "warn  fits")  # other programs may leave little memory
    assert any(line.startswith(fits) for line in lines)
    assert lines[-1].endswith(" 0 fail")


def test_every_fault_is_a_line_with_its_remedy_and_the_exit_code_is_1(tmp_path: Path) -> None:
    result = _doctor(
        str(tmp_path),
        PYTHONPATH=_broken_packages(tmp_path),
        PATH="/nowhere",
        CXX="",
        ASCEND_HOME_PATH="/nowhere/ascend",
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    lines = result.stdout.splitlines()
    for name, status, finding in (
        ("NumPy", "fail", "2.1.0"),
        ("C++ kernels", "warn", "no C++ compiler found"),
        ("device", "fail", "libmindspore_core.so is missing"),
        ("CANN", "fail", "/nowhere/ascend, which does not exist"),
        ("checkpoint", "fail", "msport.json: no such file"),
    ):
        (number,) = (number for number, line in enumerate(lines) if line.startswith(f"{status}  {name} "))
        assert finding in lines[number]
        assert lines[number + 1].strip().startswith("-> ")


def test_json_is_one_document_as_its_schema_says(sample: Path, tmp_path: Path) -> None:
    convert_checkpoint(sample, tmp_path / "converted", dtype="mxfp4")
    sizes = ("--max-length", "64", "--batch", "3")
    result = _doctor(str(tmp_path / "converted"), *sizes, "--json", PYTHONPATH=_broken_packages(tmp_path))
    document = json.loads(result.stdout)
    check_schema(document, "doctor.schema.json")
    assert result.returncode == 1
    assert document["passed"] is False
    fit = document["fit"]
    assert (fit["dtype"], fit["max_length"], fit["batch"]) == ("float32", 64, 3)
    assert {choice["dtype"] for choice in fit["choices"]} == {"float32", "float16"}
    del fit["needed_nbytes"]["total"]
    with pytest.raises(jsonschema.ValidationError):
        check_schema(document, "doctor.schema.json")
    statuses = {check["name"]: check["status"] for check in document["checks"]}
    assert statuses["device"] == "fail"
    assert statuses["Python"] == "pass"


def test_it_runs_without_numpy(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("raise ImportError('numpy is broken')")
    result = _doctor(PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert "numpy is broken" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def infer_mixtral() -> subprocess.CompletedProcess[str]:
    config = ARCHITECTURES["MixtralForCausalLM"].sample_config() | {"num_hidden_layers": 1}
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return _doctor("--ascend", folder, "--max-length", "64", "--json")


@pytest.mark.ahead("cli.test_doctor:infer_mixtral")
def test_ascend_graphs_are_inferred_on_any_machine_from_a_config_alone(
    ahead: Callable[[], subprocess.CompletedProcess[str]],
) -> None:
    result = ahead()
    assert result.returncode == 0, result.stdout + result.stderr
    document = json.loads(result.stdout)
    check_schema(document, "doctor.schema.json")
    checks = {check["name"]: check["finding"] for check in document["checks"]}
    assert "not run" in checks["Ascend model"]
    assert "attention: FlashAttentionScore x 1" in checks["prefill graph"]
    assert "attention: FusedInferAttentionScore x 1" in checks["decode graph"]
    assert "expert products: GroupedMatmulV4 x 2" in checks["decode graph"]


def test_ascend_graphs_that_cannot_be_built_fail_in_a_line(tmp_path: Path) -> None:
    result = _doctor("--ascend", str(tmp_path))
    assert result.returncode == 1
    assert result.stdout.startswith("fail  Ascend graphs")
    assert "config.json: no such file" in result.stdout
    result = _doctor("--ascend")
    assert result.returncode == 2
    assert result.stderr.strip().endswith("--ascend needs DIR, a folder with a model's config.json")
