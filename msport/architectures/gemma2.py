"""Gemma2 (2B, 9B, 27B): soft-capped scores and logits, four norms a layer, alternating windows.

Source: https://arxiv.org/abs/2408.00118 and ``transformers/models/gemma2``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures.config import ModelConfig, layer_windows, parse_decoder
from msport.architectures.decoder import attention, embedding_and_head, gated_mlp, norms
from msport.architectures.fields import ConfigFields
from msport.architectures.tensors import Weight

NAME = "Gemma2ForCausalLM"
NORMS = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")

# What Transformers assumes where config.json is silent; null means something else: no cap, one key head per head.
_SILENT = {
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "num_key_value_heads": 4,
    "sliding_window": 4096,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemma2Config(ModelConfig):
    attention_bias: bool
    query_pre_attn_scalar: float
    attn_logit_softcapping: float | None
    final_logit_softcapping: float | None


def parse(data: Mapping[str, Any], where: Path) -> Gemma2Config:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_activation", ("gelu_pytorch_tanh",), "gelu_pytorch_tanh")
    shared = parse_decoder(fields, rope_theta=10000.0, tie_word_embeddings=True)
    layers = shared["num_hidden_layers"]
    alternating = tuple("full_attention" if layer % 2 else "sliding_attention" for layer in range(layers))
    layer_types = fields.layer_types("layer_types", layers, alternating)
    return Gemma2Config(
        architecture=NAME,
        **shared,
        windows=layer_windows(fields, layer_types, fields.optional_integer("sliding_window")),
        attention_bias=fields.boolean("attention_bias", False),
        query_pre_attn_scalar=fields.number("query_pre_attn_scalar", 256),
        attn_logit_softcapping=fields.optional_number("attn_logit_softcapping"),
        final_logit_softcapping=fields.optional_number("final_logit_softcapping"),
    )


def weights(config: Gemma2Config) -> list[Weight]:
    rows = embedding_and_head(config)
    for layer in range(config.num_hidden_layers):
        rows += norms(config, layer, *NORMS)
        rows += attention(config, layer, qkv_bias=config.attention_bias, output_bias=config.attention_bias)
        rows += gated_mlp(config, layer)
    return rows


def sample_config() -> dict[str, Any]:
    """A tiny Gemma2: window 24, a query scale unlike head_dim, a cap on scores that random weights reach."""
    return {
        "architectures": [NAME],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_logit_softcapping": 10.0,
        "final_logit_softcapping": 30.0,
        "head_dim": 32,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 192,
        "max_position_embeddings": 8192,
        "model_type": "gemma2",
        "num_attention_heads": 8,
        "num_hidden_layers": 4,
        "num_key_value_heads": 4,
        "query_pre_attn_scalar": 24,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": 24,
        "transformers_version": "4.42.4",
        "use_cache": True,
        "vocab_size": 1024,
    }
