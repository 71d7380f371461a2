"""What ``import msport`` gives: four calls and the errors they raise, at no cost."""

from __future__ import annotations

import ast
import subprocess
import sys

import msport
from msport import errors


def test_every_error_that_a_caller_may_catch_is_there() -> None:
    raised = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MsportError)
    }
    assert raised < set(msport.__all__)
    assert all(getattr(msport, name) is getattr(errors, name) for name in raised)


def test_everything_that_is_named_is_there() -> None:
    assert [name for name in msport.__all__ if getattr(msport, name, None) is None] == []


def test_the_import_loads_nothing_but_the_package() -> None:
    script = "import sys; before = set(sys.modules); import msport; print(set(sys.modules) - before)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "mindspore", "click"} & ast.literal_eval(output)
