"""Rows of the tensor table that families share (embedding, attention, norms, feed-forward, head), and the whole
table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msport.architectures.config import ModelConfig, SparseConfig
from msport.architectures.tensors import Dropped, Role, Weight, matrix, plain, stacked_experts, stacked_gate_up


def embedding_and_head(config: ModelConfig) -> list[Weight]:
    """The token embedding, the final norm, and the head unless it is tied to the embedding."""
    weights = [
        matrix("model.embed_tokens.weight", config.vocab_size, config.hidden_size, Role.EMBEDDING),
        plain("model.norm.weight", config.hidden_size),
    ]
    if not config.tie_word_embeddings:
        weights.append(matrix("lm_head.weight", config.vocab_size, config.hidden_size, Role.HEAD))
    return weights


def linear(name: str, inputs: int, outputs: int, *, bias: bool, role: Role = Role.LINEAR) -> list[Weight]:
    """A linear layer, ``weight [outputs, inputs]`` and ``bias [outputs]``."""
    weights = [matrix(f"{name}.weight", outputs, inputs, role)]
    if bias:
        weights.append(plain(f"{name}.bias", outputs))
    return weights


def attention(config: ModelConfig, layer: int) -> list[Weight]:
    """The four attention projections of `layer`, and the norms and sinks of heads if the config has them."""
    prefix = f"model.layers.{layer}.self_attn"
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    rows = [
        *linear(f"{prefix}.q_proj", config.hidden_size, queries, bias=config.qkv_bias),
        *linear(f"{prefix}.k_proj", config.hidden_size, keys, bias=config.qkv_bias),
        *linear(f"{prefix}.v_proj", config.hidden_size, keys, bias=config.qkv_bias),
        *linear(f"{prefix}.o_proj", queries, config.hidden_size, bias=config.output_bias),
    ]
    if config.qk_norm:
        rows += [plain(f"{prefix}.{name}.weight", config.head_dim) for name in ("q_norm", "k_norm")]
    if config.sinks:
        rows.append(plain(f"{prefix}.sinks", config.num_attention_heads))
    return rows


def gated_mlp(config: ModelConfig, layer: int) -> list[Weight]:
    """The gate, up and down projections of a dense feed-forward in `layer`."""
    prefix = f"model.layers.{layer}.mlp"
    hidden, intermediate, bias = config.hidden_size, config.intermediate_size, config.mlp_bias
    return [
        *linear(f"{prefix}.gate_proj", hidden, intermediate, bias=bias),
        *linear(f"{prefix}.up_proj", hidden, intermediate, bias=bias),
        *linear(f"{prefix}.down_proj", intermediate, hidden, bias=bias),
    ]


def routed_experts(config: SparseConfig, prefix: str, *, gate: str, up: str, down: str) -> list[Weight]:
    """The router and the experts below `prefix`; each expert ships as three layers named `gate`, `up` and `down`."""
    experts, hidden, intermediate = config.num_local_experts, config.hidden_size, config.moe_intermediate_size
    expert = f"{prefix}.experts.{{e}}"
    return [
        *linear(f"{prefix}.gate", hidden, experts, bias=False, role=Role.ROUTER),
        stacked_gate_up(
            f"{prefix}.experts.gate_up_proj",
            experts,
            hidden,
            intermediate,
            gate=f"{expert}.{gate}.weight",
            up=f"{expert}.{up}.weight",
        ),
        stacked_experts(f"{prefix}.experts.down_proj", experts, intermediate, hidden, f"{expert}.{down}.weight"),
    ]


def norms(config: ModelConfig, layer: int, *names: str) -> list[Weight]:
    """RMSNorm weights of `layer`, ``[hidden_size]`` each."""
    return [plain(f"model.layers.{layer}.{name}.weight", config.hidden_size) for name in names]


def weights(config: Any, feed_forward: Callable[[Any, int], list[Weight]] = gated_mlp) -> list[Weight]:
    """The table of a decoder with one norm before attention and one before `feed_forward`, as most families have them.

    `feed_forward` takes `config`, a `ModelConfig`, and returns the rows of one layer.
    """
    rows = embedding_and_head(config)
    for layer in range(config.num_hidden_layers):
        rows += norms(config, layer, "input_layernorm", "post_attention_layernorm")
        rows += attention(config, layer)
        rows += feed_forward(config, layer)
    return rows


def dropped(config: ModelConfig) -> list[Dropped]:
    """The unused tensors that checkpoints of any family may contain."""
    rows = [
        Dropped(f"model.layers.{layer}.self_attn.rotary_emb.inv_freq", "recomputed from config.json")
        for layer in range(config.num_hidden_layers)
    ]
    if config.tie_word_embeddings:
        rows.append(Dropped("lm_head.weight", "tied to model.embed_tokens.weight"))
    return rows
