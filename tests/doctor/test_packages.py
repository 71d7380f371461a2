"""Versions that cannot work fail, versions that may not agree warn, and the bounds are those of setup.cfg."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from msport.doctor import packages
from msport.doctor.check import Status
from msport.doctor.packages import (
    check_mindspore,
    check_numpy,
    check_packages,
    check_python,
    check_torch,
    check_transformers,
    within,
)


@pytest.mark.parametrize(
    ("check", "status", "finding"),
    [
        (check_numpy("1.26.4"), Status.PASS, "1.26.4"),
        (check_numpy("2.0.0"), Status.FAIL, "2.0.0: MindSpore raises TypeError on every bfloat16 path with NumPy 2"),
        (check_numpy("2.3.1"), Status.FAIL, "NumPy 2"),
        (check_numpy("1.22.0"), Status.FAIL, "older than 1.24"),
        (check_numpy(None), Status.FAIL, "not installed"),
        (check_mindspore("2.10.0"), Status.PASS, "2.10.0"),
        (check_mindspore("2.10.1rc1"), Status.PASS, "2.10.1rc1"),
        (check_mindspore("2.9.0"), Status.FAIL, "2.9.0; msport is written for 2.10.0"),
        (check_mindspore("2.11.0"), Status.FAIL, "2.11.0"),
        (check_mindspore(None), Status.FAIL, "not installed: only converting and inspecting work"),
        (check_python("3.9.18"), Status.FAIL, "3.9.18 is not supported"),
        (check_python("3.10.0"), Status.PASS, "3.10.0"),
        (check_python("3.12.7"), Status.PASS, "3.12.7"),
        (check_python("3.13.0"), Status.FAIL, "3.13.0"),
        (check_torch(None), Status.WARN, "msport validate and bench --baseline need it"),
        (check_transformers(None), Status.WARN, "not installed"),
        (check_transformers("4.57.1"), Status.PASS, "4.57.1"),
        (check_transformers("4.55.4"), Status.WARN, "logits differ between versions"),
        (check_transformers("5.23.0"), Status.PASS, "5.23.0"),
        (check_transformers("5.0.0"), Status.WARN, "5.0.0: msport was tested with >=4.57.1,<4.58 and >=5.23,<6"),
        (check_transformers("6.1"), Status.WARN, "6.1"),
    ],
)
def test_a_version_is_judged(check: packages.Check, status: Status, finding: str) -> None:
    assert check.status is status
    assert finding in check.finding
    assert (check.remedy is None) == (status is Status.PASS)


@pytest.mark.parametrize(("version", "extra"), [("4.55.4", "reference"), ("5.0.0", "reference5")])
def test_the_extra_that_is_advised_is_the_one_for_what_is_installed(version: str, extra: str) -> None:
    assert check_transformers(version).remedy == f"pip install 'msport[{extra}]'"


def test_versions_are_compared_by_number_and_not_as_text() -> None:
    assert within("2.10.0", "2.9", "2.11")
    assert not within("2.9.0", "2.10", "3")


def test_numpy_2_is_noticed_from_its_metadata_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "numpy-2.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    (check,) = (check for check in check_packages() if check.name == "NumPy")
    assert check.status is Status.FAIL
    assert check.finding.startswith("2.1.0")
    assert check.remedy == "pip install 'numpy<2'"


def test_the_bounds_are_those_that_pip_enforces() -> None:
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    extras = setup["options.extras_require"]
    required = setup["options"]["install_requires"] + extras["reference"]
    for name, (lowest, beyond) in {
        "mindspore": packages.MINDSPORE,
        "numpy": packages.NUMPY,
        "transformers": packages.TRANSFORMERS,
    }.items():
        assert f"{name}>={lowest},<{beyond}" in required
    assert "transformers>={},<{}".format(*packages.TRANSFORMERS5) in extras["reference5"]
    assert setup["options"]["python_requires"] == ">={},<{}".format(*packages.PYTHON)
