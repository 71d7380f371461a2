"""Llama 2, 3, 3.1 and later: the plain decoder from which most families derive, with biases if the config asks for
them.

Source: https://github.com/meta-llama/llama-models and ``transformers/models/llama``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures.architecture import Architecture
from msport.architectures.config import SILU, ModelConfig, parse_decoder, uniform_windows
from msport.architectures.fields import ConfigFields
from msport.architectures.tiny_config import tiny_config

NAME = "LlamaForCausalLM"


def parse(data: Mapping[str, Any], where: Path) -> ModelConfig:
    fields = ConfigFields(data, where)
    fields.choice("hidden_act", SILU, "silu")
    fields.fixed("sliding_window", None, "Llama has no sliding window")
    shared = parse_decoder(fields, rope_theta=10000.0)
    attention_bias = fields.boolean("attention_bias", False)
    return ModelConfig(
        architecture=NAME,
        **shared,
        windows=uniform_windows(fields, shared["num_hidden_layers"], None),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        mlp_bias=fields.boolean("mlp_bias", False),
    )


def sample_config() -> dict[str, Any]:
    """A tiny Llama 3.2: RoPE type llama3, tied embeddings, and the biases that a config may ask for."""
    return tiny_config(
        NAME,
        "llama",
        attention_bias=True,
        head_dim=32,
        max_position_embeddings=131072,
        mlp_bias=True,
        pretraining_tp=1,
        rms_norm_eps=1e-05,
        rope_scaling={
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        rope_theta=500000.0,
        tie_word_embeddings=True,
        transformers_version="4.45.0.dev0",
    )


FAMILY = Architecture(
    name=NAME,
    model_type="llama",
    title="Llama",
    parse=parse,
    sample_config=sample_config,
)
