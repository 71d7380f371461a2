"""Mixtral in graph mode against Transformers."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor

from msmodels.parity import Fault, ParityTests, Variant, layers
from msport.msmodels import LanguageModel

pytestmark = pytest.mark.reference

VARIANTS = {
    "8x7b": Variant({"model_type": "mixtral", "num_local_experts": 8}, full=8.6e-7, cached=6.0e-7),
    "top-3-of-5-with-a-window": Variant(
        {
            "model_type": "mixtral",
            "num_local_experts": 5,
            "num_experts_per_tok": 3,
            "sliding_window": 12,
            "head_dim": 20,
        },
        full=7.6e-7,
        cached=6.1e-7,
    ),
}


def leave_shares_as_they_are(model: LanguageModel) -> None:
    layers(model)[0].block_sparse_moe.normalize = False


def swap_gate_and_up(model: LanguageModel) -> None:
    parameter = layers(model)[1].block_sparse_moe.experts.gate_up_proj
    gate, up = np.split(parameter.asnumpy(), 2, axis=-1)
    parameter.set_data(Tensor(np.concatenate([up, gate], axis=-1)))


FAULTS = {
    "shares-not-renormalised": Fault("8x7b", leave_shares_as_they_are),
    "gate-and-up-swapped": Fault("8x7b", swap_gate_and_up),
}


class TestMixtral(ParityTests):
    pass
