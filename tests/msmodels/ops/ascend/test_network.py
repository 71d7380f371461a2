"""Whole networks of the fused form, with the operators emulated, give the logits of the portable form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from msport.architectures import ARCHITECTURES
from msport.child import call_in_child

# Relative L2 in float32, twice the worst measured: 7.1e-7 of gpt-oss, packed or not.
TOLERANCE = 1.5e-6

OTHERS = [family.title for family in ARCHITECTURES.values() if family.title != "gpt-oss"]


def emulate(*families: str) -> dict[str, float]:
    arguments = {"families": list(families)}
    errors: dict[str, float] = call_in_child("msmodels.ops.ascend.emulation:errors", arguments, task="emulating Ascend")
    return errors


def emulate_quantised(*cases: tuple[str, str, bool]) -> dict[str, float]:
    arguments = {"cases": [list(case) for case in cases]}
    errors: dict[str, float] = call_in_child(
        "msmodels.ops.ascend.emulation:quantised_errors", arguments, task="emulating Ascend"
    )
    return errors


def _emulated(name: str, *families: str, slow: bool) -> Any:
    mark = pytest.mark.ahead("msmodels.ops.ascend.test_network:emulate", *families)
    return pytest.param(id=name, marks=[mark, pytest.mark.slow] if slow else mark)


@pytest.mark.parametrize((), [_emulated("gpt-oss", "gpt-oss", slow=False), _emulated("others", *OTHERS, slow=True)])
def test_the_fused_network_is_the_portable_one(ahead: Callable[[], dict[str, float]]) -> None:
    """In graph mode: caches written in place, two prompts of different lengths, ring buffers that wrap, decoding."""
    for family, error in ahead().items():
        print(f"{family}: relative L2 error {error:.1e}")
        assert error <= TOLERANCE, family


# gpt-oss has biases and interleaves gate and up; experts in int8 with groups are decoded in the graph.
QUICK = [("gpt-oss", "int4", False)]
OTHER_CASES = [
    ("Llama", "int4", True),
    ("Llama", "int8", True),
    ("Qwen3-MoE", "int4", False),
    ("Mixtral", "int8", False),
]


def _quantised(*cases: tuple[str, str, bool], slow: bool) -> Any:
    mark = pytest.mark.ahead("msmodels.ops.ascend.test_network:emulate_quantised", *cases)
    return pytest.param(id=cases[0][0], marks=[mark, pytest.mark.slow] if slow else mark)


@pytest.mark.parametrize((), [_quantised(*QUICK, slow=False), _quantised(*OTHER_CASES, slow=True)])
def test_the_fused_network_of_quantised_weights_is_the_portable_one(ahead: Callable[[], dict[str, float]]) -> None:
    """Codes, scales and zero points of converted checkpoints are where CANN's operators look for them."""
    for case, error in ahead().items():
        print(f"{case}: relative L2 error {error:.1e}")
        assert error <= TOLERANCE, case
