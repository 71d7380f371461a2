"""Configs of every family, drawn at random within bounds: what a config.json may say, and a little more."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

LAYERS = 2

Draw = Callable[[random.Random], Any]


def one_of(*values: Any) -> Draw:
    return lambda source: source.choice(values)


def layer_types(source: random.Random) -> list[str]:
    return [source.choice(["full_attention", "sliding_attention"]) for _ in range(LAYERS)]


def yarn(source: random.Random) -> dict[str, Any]:
    optional = {"beta_fast": 16.0, "truncate": False, "attention_factor": 1.2, "mscale": 0.7, "mscale_all_dim": 0.5}
    drawn = {name: value for name, value in optional.items() if source.random() < 0.4}
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": source.choice([32, 128]), **drawn}


def rope_scaling(source: random.Random) -> dict[str, Any] | None:
    llama3 = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    linear = {"type": "linear", "factor": 4.0}
    dynamic = {"rope_type": "dynamic", "factor": 2.0}
    return source.choice([None, {"rope_type": "default"}, linear, yarn(source), yarn(source), llama3, dynamic])


SIZES: dict[str, Draw] = {
    "vocab_size": one_of(61, 128),
    "hidden_size": one_of(48, 72),
    "intermediate_size": one_of(40, 96),
    "num_hidden_layers": one_of(LAYERS),
    "num_attention_heads": one_of(6, 2),
    "num_key_value_heads": one_of(2, 1),
    "head_dim": one_of(8, 12, 20),
    "max_position_embeddings": one_of(256, 512),
}
# What a config may leave out, and does half of the time.
SHARED: dict[str, Draw] = {
    "rms_norm_eps": one_of(1e-6, 1e-5),
    "rope_theta": one_of(1e4, 1e6),
    "rope_scaling": rope_scaling,
    "tie_word_embeddings": one_of(True, False),
    "partial_rotary_factor": one_of(1.0, 1.0, 1.0, 0.5),
}
SILU: dict[str, Draw] = {"hidden_act": one_of("silu", "silu", "silu", "gelu")}
BIAS: dict[str, Draw] = {"attention_bias": one_of(True, False)}
WINDOW: dict[str, Draw] = {"sliding_window": one_of(12, 5, 40, None)}
QWEN_WINDOWS: dict[str, Draw] = {
    "use_sliding_window": one_of(True, False),
    **WINDOW,
    "max_window_layers": one_of(0, 1, 2),
    "layer_types": layer_types,
}
FAMILIES: dict[str, dict[str, Draw]] = {
    "gemma2": {
        **BIAS,
        "attn_logit_softcapping": one_of(50.0, 3.0, None),
        "final_logit_softcapping": one_of(30.0, 2.0, None),
        "hidden_activation": one_of("gelu_pytorch_tanh", "gelu_pytorch_tanh", "gelu"),
        "query_pre_attn_scalar": one_of(256, 15),
        "sliding_window": one_of(12, 5, 40),
        "layer_types": layer_types,
    },
    "llama": {**SILU, **BIAS, "mlp_bias": one_of(True, False)},
    "mistral": {**SILU, **WINDOW},
    "mixtral": {**SILU, **WINDOW, "num_local_experts": one_of(4, 6), "num_experts_per_tok": one_of(1, 2, 4)},
    "qwen2": {**SILU, **QWEN_WINDOWS},
    "qwen3": {**SILU, **QWEN_WINDOWS, **BIAS},
    "qwen3_moe": {
        **SILU,
        **BIAS,
        **WINDOW,
        "use_sliding_window": one_of(True, False),
        "norm_topk_prob": one_of(True, False),
        "decoder_sparse_step": one_of(1, 2),
        "mlp_only_layers": one_of([], [1]),
    },
}
# Without these a family is too large to be drawn.
REQUIRED: dict[str, dict[str, Draw]] = {
    "qwen3_moe": {
        "num_experts": one_of(4, 6),
        "num_experts_per_tok": one_of(1, 2, 4),
        "moe_intermediate_size": one_of(32, 56),
    }
}


def draw_config(seed: int) -> dict[str, Any]:
    """The config of `seed`; the families take turns."""
    source = random.Random(seed)
    model_type = sorted(FAMILIES)[seed % len(FAMILIES)]
    required = {**SIZES, **REQUIRED.get(model_type, {})}
    optional = {**SHARED, **FAMILIES[model_type]}
    fields = {name: draw(source) for name, draw in required.items()}
    fields |= {name: draw(source) for name, draw in optional.items() if source.random() < 0.5}
    return {"model_type": model_type, **fields}
