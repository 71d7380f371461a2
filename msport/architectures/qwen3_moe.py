"""Qwen3-MoE (30B-A3B, 235B-A22B): Qwen3's attention over a mixture of experts, dense in the layers that say so.

Source: https://arxiv.org/abs/2505.09388 and ``transformers/models/qwen3_moe``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures.config import SILU, ModelConfig, parse_decoder, uniform_windows
from msport.architectures.decoder import attention, embedding_and_head, gated_mlp, head_norms, norms, routed_experts
from msport.architectures.fields import ConfigFields
from msport.architectures.tensors import Weight

NAME = "Qwen3MoeForCausalLM"

# What Transformers assumes where config.json is silent; null means something else: one key head per head, no window.
_SILENT = {"num_key_value_heads": 4, "sliding_window": 4096}


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3MoeConfig(ModelConfig):
    """`sparse_layers` says of each layer whether it has experts; the others have a dense feed-forward."""

    attention_bias: bool
    moe_intermediate_size: int
    num_local_experts: int
    num_experts_per_tok: int
    norm_topk_prob: bool
    sparse_layers: tuple[bool, ...]


def parse(data: Mapping[str, Any], where: Path) -> Qwen3MoeConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    shared = parse_decoder(fields, rope_theta=10000.0)
    layers = shared["num_hidden_layers"]
    window = fields.optional_integer("sliding_window") if fields.boolean("use_sliding_window", False) else None
    # Transformers 5 writes the number of experts under Mixtral's name.
    experts = fields.experts("num_experts", fields.integer("num_local_experts", 128), layers=layers)
    return Qwen3MoeConfig(
        architecture=NAME,
        **shared,
        windows=uniform_windows(fields, layers, window),
        attention_bias=fields.boolean("attention_bias", False),
        moe_intermediate_size=fields.integer("moe_intermediate_size", 768),
        num_local_experts=experts,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 8, maximum=experts),
        norm_topk_prob=fields.boolean("norm_topk_prob", False),
        sparse_layers=_sparse_layers(fields, layers),
    )


def _sparse_layers(fields: ConfigFields, layers: int) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`-th layer, but for those in `mlp_only_layers`."""
    step = fields.integer("decoder_sparse_step", 1)
    dense = frozenset(fields.integers("mlp_only_layers", ()))
    return tuple((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def weights(config: Qwen3MoeConfig) -> list[Weight]:
    rows = embedding_and_head(config)
    for layer, sparse in enumerate(config.sparse_layers):
        rows += norms(config, layer, "input_layernorm", "post_attention_layernorm")
        rows += attention(config, layer, qkv_bias=config.attention_bias, output_bias=config.attention_bias)
        rows += head_norms(config, layer)
        rows += _experts(config, layer) if sparse else gated_mlp(config, layer)
    return rows


def _experts(config: Qwen3MoeConfig, layer: int) -> list[Weight]:
    return routed_experts(
        f"model.layers.{layer}.mlp",
        config.num_local_experts,
        config.hidden_size,
        config.moe_intermediate_size,
        gate="gate_proj",
        up="up_proj",
        down="down_proj",
    )


def sample_config() -> dict[str, Any]:
    """A tiny Qwen3-MoE: 16 experts, top-4, experts in every second layer, a window of 24, biases."""
    return {
        "architectures": [NAME],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "decoder_sparse_step": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 192,
        "max_position_embeddings": 40960,
        "max_window_layers": 4,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 64,
        "norm_topk_prob": True,
        "num_attention_heads": 8,
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "output_router_logits": False,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": 24,
        "tie_word_embeddings": False,
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": True,
        "vocab_size": 1024,
    }
