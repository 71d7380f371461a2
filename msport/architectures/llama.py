"""Llama 2, 3, 3.1 and later: the plain decoder that most families derive from.

Source: https://github.com/meta-llama/llama-models and ``transformers/models/llama``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures.config import SILU, ModelConfig, parse_decoder, uniform_windows
from msport.architectures.decoder import attention, embedding_and_head, gated_mlp, norms
from msport.architectures.fields import ConfigFields
from msport.architectures.tensors import Weight

NAME = "LlamaForCausalLM"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaConfig(ModelConfig):
    attention_bias: bool
    mlp_bias: bool


def parse(data: Mapping[str, Any], where: Path) -> LlamaConfig:
    fields = ConfigFields(data, where)
    fields.choice("hidden_act", SILU, "silu")
    fields.fixed("sliding_window", None, "Llama has no sliding window")
    shared = parse_decoder(fields, rope_theta=10000.0)
    return LlamaConfig(
        architecture=NAME,
        **shared,
        windows=uniform_windows(fields, shared["num_hidden_layers"], None),
        attention_bias=fields.boolean("attention_bias", False),
        mlp_bias=fields.boolean("mlp_bias", False),
    )


def weights(config: LlamaConfig) -> list[Weight]:
    rows = embedding_and_head(config)
    for layer in range(config.num_hidden_layers):
        rows += norms(config, layer, "input_layernorm", "post_attention_layernorm")
        rows += attention(config, layer, qkv_bias=config.attention_bias, output_bias=config.attention_bias)
        rows += gated_mlp(config, layer, bias=config.mlp_bias)
    return rows


def sample_config() -> dict[str, Any]:
    """A tiny Llama 3.2: RoPE type llama3, tied embeddings, and the biases that a config may ask for."""
    return {
        "architectures": [NAME],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 192,
        "max_position_embeddings": 131072,
        "mlp_bias": True,
        "model_type": "llama",
        "num_attention_heads": 8,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 64,
            "rope_type": "llama3",
        },
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "transformers_version": "4.45.0.dev0",
        "use_cache": True,
        "vocab_size": 1024,
    }
