"""gpt-oss: mixture of experts, attention sinks, alternating sliding and full attention.

Source: https://github.com/openai/gpt-oss and ``transformers/models/gpt_oss``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport.architectures import shared_rows
from msport.architectures.architecture import Architecture
from msport.architectures.config import ModelConfig, parse_decoder
from msport.architectures.fields import ConfigFields
from msport.architectures.tensors import Role, Weight, plain
from msport.architectures.tensors import experts as expert_stack
from msport.architectures.tiny_config import tiny_config

NAME = "GptOssForCausalLM"


@dataclass(frozen=True, slots=True, kw_only=True)
class GptOssConfig(ModelConfig):
    """The config of gpt-oss."""

    num_local_experts: int
    num_experts_per_tok: int
    swiglu_limit: float
    swiglu_alpha: float


def parse(data: Mapping[str, Any], where: Path) -> GptOssConfig:
    fields = ConfigFields(data, where)
    fields.choice("hidden_act", ("silu",), "silu")
    if not fields.boolean("attention_bias", True):
        raise fields.error("attention_bias", "must be true: gpt-oss has biases on q, k, v and o")
    shared = parse_decoder(fields, rope_theta=150000.0, rms_norm_eps=1e-5)
    layers = shared["num_hidden_layers"]
    window = fields.integer("sliding_window", 128)
    alternating = tuple("full_attention" if layer % 2 else "sliding_attention" for layer in range(layers))
    layer_types = fields.layer_types("layer_types", layers, alternating)
    experts = fields.integer("num_local_experts")
    experts_per_tok = fields.integer("num_experts_per_tok", data.get("experts_per_token", 4))
    if experts_per_tok > experts:
        raise fields.error("num_experts_per_tok", f"({experts_per_tok}) exceeds num_local_experts ({experts})")
    return GptOssConfig(
        architecture=NAME,
        **shared,
        windows=tuple(window if kind == "sliding_attention" else None for kind in layer_types),
        qkv_bias=True,
        output_bias=True,
        sinks=True,
        num_local_experts=experts,
        num_experts_per_tok=experts_per_tok,
        swiglu_limit=fields.number("swiglu_limit", 7.0),
        swiglu_alpha=1.702,  # a constant in the reference, not in config.json
    )


def weights(config: GptOssConfig) -> list[Weight]:
    return shared_rows.weights(config, _experts)


def _experts(config: GptOssConfig, layer: int) -> list[Weight]:
    prefix = f"model.layers.{layer}.mlp"
    experts, hidden, intermediate = config.num_local_experts, config.hidden_size, config.intermediate_size
    sizes = {"gate_up_proj": (hidden, 2 * intermediate), "down_proj": (intermediate, hidden)}
    rows = shared_rows.linear(f"{prefix}.router", hidden, experts, bias=True, role=Role.ROUTER)
    for name, (inputs, outputs) in sizes.items():
        stack = f"{prefix}.experts.{name}"
        rows.append(expert_stack(stack, experts, inputs, outputs))
        rows.append(plain(f"{stack}_bias", experts, outputs, role=Role.EXPERT_BIASES))
    return rows


def sample_config() -> dict[str, Any]:
    """A tiny config with every feature of the 20b: window 24, YaRN without truncation, 8 experts."""
    return tiny_config(
        NAME,
        "gpt_oss",
        attention_bias=True,
        experts_per_token=4,
        head_dim=32,
        initial_context_length=4096,
        intermediate_size=96,
        layer_types=["sliding_attention", "full_attention"] * 2,
        max_position_embeddings=131072,
        num_experts_per_tok=4,
        num_local_experts=8,
        output_router_logits=False,
        quantization_config={
            "modules_to_not_convert": [
                "model.layers.*.self_attn",
                "model.layers.*.mlp.router",
                "model.embed_tokens",
                "lm_head",
            ],
            "quant_method": "mxfp4",
        },
        rms_norm_eps=1e-05,
        rope_scaling={
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "factor": 32.0,
            "original_max_position_embeddings": 4096,
            "rope_type": "yarn",
            "truncate": False,
        },
        rope_theta=150000,
        router_aux_loss_coef=0.9,
        sliding_window=24,
        swiglu_limit=7.0,
        tie_word_embeddings=False,
        transformers_version="4.55.0.dev0",
    )


FAMILY = Architecture(
    name=NAME,
    model_type="gpt_oss",
    title="gpt-oss",
    parse=parse,
    sample_config=sample_config,
    weights=weights,
    network="gpt_oss",
)
