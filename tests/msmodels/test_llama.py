"""Llama 2, 3 and 3.1 in graph mode against Transformers."""

from __future__ import annotations

import pytest
from mindspore.ops import zeros_like

from msmodels.parity import Fault, ParityTests, Variant, change_rope, layers
from msport.msmodels import LanguageModel

pytestmark = pytest.mark.reference

VARIANTS = {
    "llama-2": Variant({"model_type": "llama", "num_key_value_heads": 6}, full=5.4e-7, cached=5.1e-7),
    "llama-3.2-with-biases": Variant(
        {
            "model_type": "llama",
            "head_dim": 20,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        full=5.7e-7,
        cached=4.8e-7,
    ),
    "linear-rope": Variant(
        {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
        full=5.3e-7,
        cached=5.9e-7,
        slow=True,
    ),
}


def swap_gate_and_up(model: LanguageModel) -> None:
    mlp = layers(model)[1].mlp
    mlp.gate_proj, mlp.up_proj = mlp.up_proj, mlp.gate_proj


def drop_the_output_bias(model: LanguageModel) -> None:
    bias = layers(model)[0].self_attn.o_proj.bias
    bias.set_data(zeros_like(bias))


FAULTS = {
    "gate-and-up-swapped": Fault("llama-2", swap_gate_and_up),
    "llama3-frequencies-scaled-alike": Fault(
        "llama-3.2-with-biases", lambda model: change_rope(model, rope_type="linear")
    ),
    "output-bias-dropped": Fault("llama-3.2-with-biases", drop_the_output_bias),
}


class TestLlama(ParityTests):
    pass
