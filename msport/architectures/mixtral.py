"""Mixtral 8x7B and 8x22B: Mistral's attention over a mixture of experts.

Source: https://arxiv.org/abs/2401.04088 and ``transformers/models/mixtral``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures.config import SILU, ModelConfig, parse_decoder, uniform_windows
from msport.architectures.decoder import attention, embedding_and_head, norms, routed_experts
from msport.architectures.fields import ConfigFields
from msport.architectures.tensors import Weight

NAME = "MixtralForCausalLM"

# What Transformers assumes where config.json is silent; null means something else: one key head per head.
_SILENT = {"num_key_value_heads": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtralConfig(ModelConfig):
    num_local_experts: int
    num_experts_per_tok: int


def parse(data: Mapping[str, Any], where: Path) -> MixtralConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    fields.fixed("attention_bias", False, "Mixtral's projections have no biases")
    shared = parse_decoder(fields, rope_theta=1e6, rms_norm_eps=1e-5)
    window = fields.optional_integer("sliding_window")
    experts = fields.experts("num_local_experts", 8, layers=shared["num_hidden_layers"])
    return MixtralConfig(
        architecture=NAME,
        **shared,
        windows=uniform_windows(fields, shared["num_hidden_layers"], window),
        num_local_experts=experts,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 2, maximum=experts),
    )


def weights(config: MixtralConfig) -> list[Weight]:
    rows = embedding_and_head(config)
    for layer in range(config.num_hidden_layers):
        rows += norms(config, layer, "input_layernorm", "post_attention_layernorm")
        rows += attention(config, layer, qkv_bias=False, output_bias=False)
        rows += routed_experts(
            f"model.layers.{layer}.block_sparse_moe",
            config.num_local_experts,
            config.hidden_size,
            config.intermediate_size,
            gate="w1",
            up="w3",
            down="w2",
        )
    return rows


def sample_config() -> dict[str, Any]:
    """A tiny Mixtral: 8 experts, top-2, and a window, which the published ones leave out."""
    return {
        "architectures": [NAME],
        "attention_dropout": 0.0,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 96,
        "max_position_embeddings": 32768,
        "model_type": "mixtral",
        "num_attention_heads": 8,
        "num_experts_per_tok": 2,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "num_local_experts": 8,
        "output_router_logits": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.02,
        "sliding_window": 24,
        "tie_word_embeddings": False,
        "transformers_version": "4.36.0.dev0",
        "use_cache": True,
        "vocab_size": 1024,
    }
