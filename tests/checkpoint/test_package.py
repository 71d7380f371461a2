"""The ground floor stands on nothing but NumPy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import msport.checkpoint

EVERY_MODULE = (
    "atomic ckpt dtypes file_pool index layout manifest mxfp4 protobuf reader regular_files safetensors strict_json"
    " writer"
)


def test_no_module_imports_a_framework() -> None:
    program = (
        f"import sys\nfrom msport.checkpoint import {', '.join(EVERY_MODULE.split())}\n"
        "print(*sorted({'mindspore', 'torch', 'transformers', 'safetensors', 'google.protobuf'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_importing_the_package_imports_not_even_numpy() -> None:
    program = "import sys, msport.checkpoint\nprint('numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("name", msport.checkpoint.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(msport.checkpoint, name).__name__ == name


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'none'"):
        _ = msport.checkpoint.none
