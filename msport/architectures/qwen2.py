"""Qwen2 and Qwen2.5 (0.5B to 72B), Qwen2.5-Coder and -Math: biases on q, k and v, windows from a layer on.

Source: https://arxiv.org/abs/2412.15115 and ``transformers/models/qwen2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures.architecture import Architecture
from msport.architectures.config import SILU, ModelConfig, layer_windows, parse_decoder
from msport.architectures.fields import ConfigFields
from msport.architectures.tiny_config import tiny_config

NAME = "Qwen2ForCausalLM"

# Transformers' values for fields absent in config.json. A null means something else: one key head per head, no window.
_SILENT = {"num_key_value_heads": 32, "sliding_window": 4096, "max_window_layers": 28}


def parse(data: Mapping[str, Any], where: Path) -> ModelConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    fields.fixed("attention_bias", True, "Qwen2 has biases on q, k and v")
    shared = parse_decoder(fields, rope_theta=10000.0)
    return ModelConfig(
        architecture=NAME,
        **shared,
        windows=qwen_windows(fields, shared["num_hidden_layers"]),
        qkv_bias=True,
    )


def qwen_windows(fields: ConfigFields, num_hidden_layers: int) -> tuple[int | None, ...]:
    """The window of each layer: `sliding_window` from layer `max_window_layers` on, but only with
    `use_sliding_window`.
    """
    window = fields.optional_integer("sliding_window") if fields.boolean("use_sliding_window", False) else None
    first = fields.integer("max_window_layers", minimum=0)
    default = tuple(
        "full_attention" if window is None or layer < first else "sliding_attention"
        for layer in range(num_hidden_layers)
    )
    return layer_windows(fields, fields.layer_types("layer_types", num_hidden_layers, default), window)


def sample_config() -> dict[str, Any]:
    """A tiny Qwen2.5: tied embeddings, a window of 24 in the last two of four layers, YaRN as in its model card."""
    return tiny_config(
        NAME,
        "qwen2",
        max_position_embeddings=32768,
        max_window_layers=2,
        rms_norm_eps=1e-06,
        rope_scaling={"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
        rope_theta=1000000.0,
        sliding_window=24,
        tie_word_embeddings=True,
        transformers_version="4.43.1",
        use_sliding_window=True,
    )


FAMILY = Architecture(
    name=NAME,
    model_type="qwen2",
    title="Qwen2",
    parse=parse,
    sample_config=sample_config,
)
