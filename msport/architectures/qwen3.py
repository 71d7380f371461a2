"""Qwen3, dense (0.6B to 32B): queries and keys normalised per head, no biases unless asked for.

Source: https://arxiv.org/abs/2505.09388 and ``transformers/models/qwen3``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures.config import SILU, ModelConfig, parse_decoder
from msport.architectures.decoder import attention, embedding_and_head, gated_mlp, head_norms, norms
from msport.architectures.fields import ConfigFields
from msport.architectures.qwen2 import qwen_windows
from msport.architectures.tensors import Weight

NAME = "Qwen3ForCausalLM"

# What Transformers assumes where config.json is silent; null means something else: one key head per head, no window.
_SILENT = {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Config(ModelConfig):
    attention_bias: bool


def parse(data: Mapping[str, Any], where: Path) -> Qwen3Config:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    shared = parse_decoder(fields, rope_theta=10000.0)
    return Qwen3Config(
        architecture=NAME,
        **shared,
        windows=qwen_windows(fields, shared["num_hidden_layers"]),
        attention_bias=fields.boolean("attention_bias", False),
    )


def weights(config: Qwen3Config) -> list[Weight]:
    rows = embedding_and_head(config)
    for layer in range(config.num_hidden_layers):
        rows += norms(config, layer, "input_layernorm", "post_attention_layernorm")
        rows += attention(config, layer, qkv_bias=config.attention_bias, output_bias=config.attention_bias)
        rows += head_norms(config, layer)
        rows += gated_mlp(config, layer)
    return rows


def sample_config() -> dict[str, Any]:
    """A tiny Qwen3: explicit head_dim, tied embeddings, biases, a window of 24 in the last two of four layers."""
    return {
        "architectures": [NAME],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 192,
        "max_position_embeddings": 40960,
        "max_window_layers": 2,
        "model_type": "qwen3",
        "num_attention_heads": 8,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 24,
        "tie_word_embeddings": True,
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": True,
        "vocab_size": 1024,
    }
