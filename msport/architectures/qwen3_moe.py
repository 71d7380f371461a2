"""Qwen3-MoE (30B-A3B, 235B-A22B): Qwen3's attention with a mixture of experts; some layers may be dense.

Source: https://arxiv.org/abs/2505.09388 and ``transformers/models/qwen3_moe``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msport.architectures import shared_rows
from msport.architectures.architecture import Architecture
from msport.architectures.config import SILU, SparseConfig, parse_decoder, uniform_windows
from msport.architectures.fields import ConfigFields
from msport.architectures.tensors import Weight
from msport.architectures.tiny_config import tiny_config

NAME = "Qwen3MoeForCausalLM"

# Transformers' values for fields absent in config.json. A null means something else: one key head per head, no window.
_SILENT = {"num_key_value_heads": 4, "sliding_window": 4096}


def parse(data: Mapping[str, Any], where: Path) -> SparseConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    shared = parse_decoder(fields, rope_theta=10000.0)
    layers = shared["num_hidden_layers"]
    window = fields.optional_integer("sliding_window") if fields.boolean("use_sliding_window", False) else None
    # Transformers 5 uses Mixtral's name for the number of experts.
    experts = fields.experts("num_experts", fields.integer("num_local_experts", 128), layers=layers)
    attention_bias = fields.boolean("attention_bias", False)
    return SparseConfig(
        architecture=NAME,
        **shared,
        windows=uniform_windows(fields, layers, window),
        qkv_bias=attention_bias,
        output_bias=attention_bias,
        qk_norm=True,
        moe_intermediate_size=fields.integer("moe_intermediate_size", 768),
        num_local_experts=experts,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 8, maximum=experts),
        norm_topk_prob=fields.boolean("norm_topk_prob", False),
        sparse_layers=_sparse_layers(fields, layers),
    )


def _sparse_layers(fields: ConfigFields, layers: int) -> tuple[bool, ...]:
    """Every `decoder_sparse_step`-th layer, except those in `mlp_only_layers`."""
    step = fields.integer("decoder_sparse_step", 1)
    dense = frozenset(fields.integers("mlp_only_layers", ()))
    return tuple((layer + 1) % step == 0 and layer not in dense for layer in range(layers))


def weights(config: SparseConfig) -> list[Weight]:
    return shared_rows.weights(config, _feed_forward)


def _feed_forward(config: SparseConfig, layer: int) -> list[Weight]:
    if not config.sparse_layers[layer]:
        return shared_rows.gated_mlp(config, layer)
    prefix = f"model.layers.{layer}.mlp"
    return shared_rows.routed_experts(config, prefix, gate="gate_proj", up="up_proj", down="down_proj")


def sample_config() -> dict[str, Any]:
    """A tiny Qwen3-MoE: 16 experts, top-4, experts in every second layer, a window of 24, biases."""
    return tiny_config(
        NAME,
        "qwen3_moe",
        attention_bias=True,
        decoder_sparse_step=2,
        head_dim=32,
        max_position_embeddings=40960,
        max_window_layers=4,
        mlp_only_layers=[],
        moe_intermediate_size=64,
        norm_topk_prob=True,
        num_experts=16,
        num_experts_per_tok=4,
        output_router_logits=False,
        rms_norm_eps=1e-06,
        rope_scaling=None,
        rope_theta=1000000.0,
        router_aux_loss_coef=0.001,
        sliding_window=24,
        tie_word_embeddings=False,
        transformers_version="4.51.0",
        use_sliding_window=True,
    )


FAMILY = Architecture(
    name=NAME,
    model_type="qwen3_moe",
    title="Qwen3-MoE",
    parse=parse,
    sample_config=sample_config,
    weights=weights,
)
