"""Mistral 7B (v0.1 to v0.3), Nemo and similar models: Llama's layers with grouped heads and, in v0.1, a window on each.

Source: https://arxiv.org/abs/2310.06825 and ``transformers/models/mistral``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures.architecture import Architecture
from msport.architectures.config import SILU, ModelConfig, parse_decoder, uniform_windows
from msport.architectures.fields import ConfigFields
from msport.architectures.tiny_config import tiny_config

NAME = "MistralForCausalLM"

# Transformers' values for fields absent in config.json. A null means something else: one key head per head, no window.
_SILENT = {"num_key_value_heads": 8, "sliding_window": 4096}


def parse(data: Mapping[str, Any], where: Path) -> ModelConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    fields.fixed("attention_bias", False, "Mistral's projections have no biases")
    shared = parse_decoder(fields, rope_theta=10000.0)
    window = fields.optional_integer("sliding_window")
    return ModelConfig(
        architecture=NAME,
        **shared,
        windows=uniform_windows(fields, shared["num_hidden_layers"], window),
    )


def sample_config() -> dict[str, Any]:
    """A tiny Mistral with v0.1's window, here 24, and Nemo's explicit head_dim, here twice hidden_size / heads."""
    return tiny_config(
        NAME,
        "mistral",
        head_dim=32,
        max_position_embeddings=32768,
        rms_norm_eps=1e-05,
        rope_theta=10000.0,
        sliding_window=24,
        tie_word_embeddings=False,
        transformers_version="4.42.0.dev0",
    )


FAMILY = Architecture(
    name=NAME,
    model_type="mistral",
    title="Mistral",
    parse=parse,
    sample_config=sample_config,
)
