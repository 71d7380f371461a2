"""Gemma2 (2B, 9B, 27B): soft-capped scores and logits, four norms per layer, alternating windows.

Source: https://arxiv.org/abs/2408.00118 and ``transformers/models/gemma2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures.architecture import Architecture
from msport.architectures.config import ModelConfig, layer_windows, parse_decoder
from msport.architectures.fields import ConfigFields
from msport.architectures.shared_rows import attention, embedding_and_head, gated_mlp, norms
from msport.architectures.tensors import Weight
from msport.architectures.tiny_config import tiny_config

NAME = "Gemma2ForCausalLM"
NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")

# Transformers' values for fields absent in config.json. A null means something else: no cap, one key head per head.
_SILENT = {
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "sliding_window": 4096,
}


def parse(data: Mapping[str, Any], where: Path) -> ModelConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_activation", ("gelu_pytorch_tanh",), "gelu_pytorch_tanh")
    shared = parse_decoder(fields, rope_theta=10000.0, tie_word_embeddings=True)
    layers = shared["num_hidden_layers"]
    alternating = tuple("full_attention" if layer % 2 else "sliding_attention" for layer in range(layers))
    layer_types = fields.layer_types("layer_types", layers, alternating)
    attention_bias = fields.boolean("attention_bias", False)
    return ModelConfig(
        architecture=NAME,
        **shared,
        windows=layer_windows(fields, layer_types, fields.optional_integer("sliding_window")),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        activation="gelu_tanh",
        attention_scale=fields.number("query_pre_attn_scalar", 256) ** -0.5,
        attn_logit_softcapping=fields.optional_number("attn_logit_softcapping"),
        final_logit_softcapping=fields.optional_number("final_logit_softcapping"),
    )


def weights(config: ModelConfig) -> list[Weight]:
    rows = embedding_and_head(config)
    for layer in range(config.num_hidden_layers):
        rows += norms(config, layer, *NORMS)
        rows += attention(config, layer)
        rows += gated_mlp(config, layer)
    return rows


def sample_config() -> dict[str, Any]:
    """A tiny Gemma2: window 24, a query scale that differs from head_dim, a cap on scores that random weights reach."""
    return tiny_config(
        NAME,
        "gemma2",
        attention_bias=False,
        attn_logit_softcapping=10.0,
        final_logit_softcapping=30.0,
        head_dim=32,
        hidden_act="gelu_pytorch_tanh",
        hidden_activation="gelu_pytorch_tanh",
        max_position_embeddings=8192,
        num_key_value_heads=4,
        query_pre_attn_scalar=24,
        rms_norm_eps=1e-06,
        rope_theta=10000.0,
        sliding_window=24,
        transformers_version="4.42.4",
    )


FAMILY = Architecture(
    name=NAME,
    model_type="gemma2",
    title="Gemma2",
    parse=parse,
    sample_config=sample_config,
    weights=weights,
    network="gemma2",
)
