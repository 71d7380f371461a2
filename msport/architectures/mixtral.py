"""Mixtral 8x7B and 8x22B: Mistral's attention with a mixture of experts.

Source: https://arxiv.org/abs/2401.04088 and ``transformers/models/mixtral``.
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

NAME = "MixtralForCausalLM"

# Transformers' values for fields absent in config.json. A null means something else: one key head per head.
_SILENT = {"num_key_value_heads": 8}


def parse(data: Mapping[str, Any], where: Path) -> SparseConfig:
    fields = ConfigFields(data, where, silent=_SILENT)
    fields.choice("hidden_act", SILU, "silu")
    fields.fixed("attention_bias", False, "Mixtral's projections have no biases")
    shared = parse_decoder(fields, rope_theta=1e6, rms_norm_eps=1e-5)
    layers = shared["num_hidden_layers"]
    window = fields.optional_integer("sliding_window")
    experts = fields.experts("num_local_experts", 8, layers=layers)
    return SparseConfig(
        architecture=NAME,
        **shared,
        windows=uniform_windows(fields, layers, window),
        num_local_experts=experts,
        num_experts_per_tok=fields.integer("num_experts_per_tok", 2, maximum=experts),
        moe_intermediate_size=shared["intermediate_size"],
        norm_topk_prob=True,
        sparse_layers=(True,) * layers,
    )


def weights(config: SparseConfig) -> list[Weight]:
    return shared_rows.weights(config, _experts)


def _experts(config: SparseConfig, layer: int) -> list[Weight]:
    prefix = f"model.layers.{layer}.block_sparse_moe"
    return shared_rows.routed_experts(config, prefix, gate="w1", up="w3", down="w2")


def sample_config() -> dict[str, Any]:
    """A tiny Mixtral: 8 experts, top-2, and a window, which the published models do not have."""
    return tiny_config(
        NAME,
        "mixtral",
        head_dim=32,
        intermediate_size=96,
        max_position_embeddings=32768,
        num_experts_per_tok=2,
        num_local_experts=8,
        output_router_logits=False,
        rms_norm_eps=1e-05,
        rope_theta=1000000.0,
        router_aux_loss_coef=0.02,
        sliding_window=24,
        tie_word_embeddings=False,
        transformers_version="4.36.0.dev0",
    )


FAMILY = Architecture(
    name=NAME,
    model_type="mixtral",
    title="Mixtral",
    parse=parse,
    sample_config=sample_config,
    weights=weights,
    network="mixtral",
)
