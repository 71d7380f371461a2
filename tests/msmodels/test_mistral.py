"""Mistral 7B and Nemo in graph mode against Transformers."""

from __future__ import annotations

import pytest

from msmodels.parity import Fault, ParityTests, Variant, change_windows

pytestmark = pytest.mark.reference

VARIANTS = {
    "7b-v0.1": Variant({"model_type": "mistral", "sliding_window": 12}, full=7.1e-7, cached=5.7e-7),
    "nemo": Variant(
        {"model_type": "mistral", "sliding_window": None, "head_dim": 20, "rope_theta": 1000000.0},
        full=5.6e-7,
        cached=5.5e-7,
    ),
}
FAULTS = {
    "window-one-too-long": Fault("7b-v0.1", lambda model: change_windows(model, 13)),
    "window-one-too-short": Fault("7b-v0.1", lambda model: change_windows(model, 11)),
}


class TestMistral(ParityTests):
    pass
