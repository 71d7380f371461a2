"""Qwen3, dense (0.6B to 32B): queries and keys normalised per head, biases only if the config says so.

Source: https://arxiv.org/abs/2505.09388 and ``transformers/models/qwen3``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures.architecture import Architecture
from msport.architectures.config import SILU, ModelConfig, parse_decoder
from msport.architectures.fields import ConfigFields
from msport.architectures.qwen2 import qwen_windows
from msport.architectures.tiny_config import tiny_config

NAME = "Qwen3ForCausalLM"

# Transformers' values for fields absent in config.json. A null means something else: one key head per head, no window.
_SILENT = {"num_key_value_heads": 32, "head_dim": 128, "sliding_window": 4096, "max_window_layers": 28}


def parse(data: Mapping[str, Any], where: Path) -> ModelConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    shared = parse_decoder(fields, rope_theta=10000.0)
    attention_bias = fields.boolean("attention_bias", False)
    return ModelConfig(
        architecture=NAME,
        **shared,
        windows=qwen_windows(fields, shared["num_hidden_layers"]),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        qk_norm=True,
    )


def sample_config() -> dict[str, Any]:
    """A tiny Qwen3: explicit head_dim, tied embeddings, biases, a window of 24 in the last two of four layers."""
    return tiny_config(
        NAME,
        "qwen3",
        attention_bias=True,
        head_dim=32,
        max_position_embeddings=40960,
        max_window_layers=2,
        rms_norm_eps=1e-06,
        rope_scaling=None,
        rope_theta=1000000,
        sliding_window=24,
        tie_word_embeddings=True,
        transformers_version="4.51.0",
        use_sliding_window=True,
    )


FAMILY = Architecture(
    name=NAME,
    model_type="qwen3",
    title="Qwen3",
    parse=parse,
    sample_config=sample_config,
)
