"""Whole networks of the fused form, with the operators emulated, give the logits of the portable form."""

from __future__ import annotations

import pytest

from msport.architectures import ARCHITECTURES
from msport.child import call_in_child

# Relative L2 in float32, twice the worst measured: 7.1e-7 of gpt-oss, packed or not.
TOLERANCE = 1.5e-6

OTHERS = [family.title for family in ARCHITECTURES.values() if family.title != "gpt-oss"]


@pytest.mark.parametrize(
    "families", [["gpt-oss"], pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["gpt-oss", "others"]
)
def test_the_fused_network_is_the_portable_one(families: list[str]) -> None:
    """In graph mode: caches written in place, two prompts of different lengths, ring buffers that wrap, decoding."""
    found = call_in_child("msmodels.ops.ascend.emulation:errors", {"families": families}, task="emulating Ascend")
    for family, error in found.items():
        print(f"{family}: relative L2 error {error:.1e}")
        assert error <= TOLERANCE, family
