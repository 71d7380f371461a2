"""Checks the versions of Python and the packages, from their metadata, so that no broken package is imported."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version

from msport import __version__
from msport.doctor.check import Check, failed, passed, warned

# As in setup.cfg: at least the first version, below the second.
PYTHON = ("3.10", "3.13")
MINDSPORE = ("2.10.0", "2.11")
NUMPY = ("1.24", "2")
TRANSFORMERS = ("4.57.1", "4.58")
TRANSFORMERS5 = ("5.23", "6")


def check_packages() -> list[Check]:
    """One check each for Python, msport, MindSpore, NumPy, torch and Transformers."""
    return [
        check_python(platform.python_version()),
        passed("msport", __version__),
        check_mindspore(installed("mindspore")),
        check_numpy(installed("numpy")),
        check_torch(installed("torch")),
        check_transformers(installed("transformers")),
    ]


def installed(package: str) -> str | None:
    """The version of `package`, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_python(found: str) -> Check:
    """Checks the version of Python."""
    if within(found, *PYTHON):
        return passed("Python", found)
    return failed("Python", f"{found} is not supported", f"use Python {PYTHON[0]} to 3.12, as MindSpore does")


def check_mindspore(found: str | None) -> Check:
    """Checks the version of MindSpore."""
    remedy = f"pip install 'mindspore>={MINDSPORE[0]},<{MINDSPORE[1]}'"
    if found is None:
        return failed("MindSpore", "not installed: only converting and inspecting work", remedy)
    if not within(found, *MINDSPORE):
        return failed("MindSpore", f"{found}; msport is written for {MINDSPORE[0]}", remedy)
    return passed("MindSpore", found)


def check_numpy(found: str | None) -> Check:
    """Checks the version of NumPy, which must be below 2."""
    remedy = "pip install 'numpy<2'"
    if found is None:
        return failed("NumPy", "not installed", remedy)
    if not within(found, "0", NUMPY[1]):
        return failed("NumPy", f"{found}: MindSpore raises TypeError on every bfloat16 path with NumPy 2", remedy)
    if not within(found, *NUMPY):
        return failed("NumPy", f"{found} is older than {NUMPY[0]}", f"pip install 'numpy>={NUMPY[0]},<2'")
    return passed("NumPy", found)


def check_torch(found: str | None) -> Check:
    """Checks that torch is installed, for the reference."""
    return _optional("torch") if found is None else passed("torch", found)


def check_transformers(found: str | None) -> Check:
    """Checks the version of Transformers, for the reference."""
    if found is None:
        return _optional("Transformers")
    if within(found, *TRANSFORMERS) or within(found, *TRANSFORMERS5):
        return passed("Transformers", found)
    # Only one of the two can be installed.
    extra = "reference5" if within(found, "5", TRANSFORMERS5[1]) else "reference"
    tested = " and ".join(f">={lowest},<{beyond}" for lowest, beyond in (TRANSFORMERS, TRANSFORMERS5))
    return warned(
        "Transformers",
        f"{found}: msport was tested with {tested}, and logits differ between versions",
        f"pip install 'msport[{extra}]'",
    )


def within(found: str, lowest: str, beyond: str) -> bool:
    """Whether `found` is at least `lowest` and below `beyond`, compared by their leading numbers."""
    return _numbers(lowest) <= _numbers(found) < _numbers(beyond)


def _numbers(text: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in release[0].split(".")) if release else ()


def _optional(name: str) -> Check:
    return warned(
        name, "not installed: msport validate and bench --baseline need it", "pip install 'msport[reference]'"
    )
