"""Tensor rows that every family has: embedding, attention projections, norms, head."""

from __future__ import annotations

from msport.architectures.config import ModelConfig
from msport.architectures.tensors import Dropped, Weight, matrix, plain, stacked_experts, stacked_gate_up


def embedding_and_head(config: ModelConfig) -> list[Weight]:
    """The token embedding, the final norm, and the head unless it is tied to the embedding."""
    weights = [
        plain("model.embed_tokens.weight", config.vocab_size, config.hidden_size),
        plain("model.norm.weight", config.hidden_size),
    ]
    if not config.tie_word_embeddings:
        weights.append(plain("lm_head.weight", config.vocab_size, config.hidden_size))
    return weights


def linear(name: str, inputs: int, outputs: int, *, bias: bool) -> list[Weight]:
    """A linear layer, ``weight [outputs, inputs]`` and ``bias [outputs]``."""
    weights = [matrix(f"{name}.weight", outputs, inputs)]
    if bias:
        weights.append(plain(f"{name}.bias", outputs))
    return weights


def attention(config: ModelConfig, layer: int, *, qkv_bias: bool, output_bias: bool) -> list[Weight]:
    """The four attention projections of `layer`."""
    prefix = f"model.layers.{layer}.self_attn"
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return [
        *linear(f"{prefix}.q_proj", config.hidden_size, queries, bias=qkv_bias),
        *linear(f"{prefix}.k_proj", config.hidden_size, keys, bias=qkv_bias),
        *linear(f"{prefix}.v_proj", config.hidden_size, keys, bias=qkv_bias),
        *linear(f"{prefix}.o_proj", queries, config.hidden_size, bias=output_bias),
    ]


def head_norms(config: ModelConfig, layer: int) -> list[Weight]:
    """RMSNorm weights over each head of the queries and keys of `layer`, ``[head_dim]`` each."""
    prefix = f"model.layers.{layer}.self_attn"
    return [plain(f"{prefix}.{name}.weight", config.head_dim) for name in ("q_norm", "k_norm")]


def gated_mlp(config: ModelConfig, layer: int, *, bias: bool = False) -> list[Weight]:
    """The gate, up and down projections of a dense feed-forward in `layer`."""
    prefix = f"model.layers.{layer}.mlp"
    return [
        *linear(f"{prefix}.gate_proj", config.hidden_size, config.intermediate_size, bias=bias),
        *linear(f"{prefix}.up_proj", config.hidden_size, config.intermediate_size, bias=bias),
        *linear(f"{prefix}.down_proj", config.intermediate_size, config.hidden_size, bias=bias),
    ]


def routed_experts(
    prefix: str, experts: int, hidden: int, intermediate: int, *, gate: str, up: str, down: str
) -> list[Weight]:
    """The router and the experts below `prefix`, which ship as three layers an expert, named `gate`, `up`, `down`."""
    expert = f"{prefix}.experts.{{e}}"
    return [
        *linear(f"{prefix}.gate", hidden, experts, bias=False),
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


def dropped(config: ModelConfig) -> list[Dropped]:
    """What checkpoints of any family are known to carry along unused."""
    rows = [
        Dropped(f"model.layers.{layer}.self_attn.rotary_emb.inv_freq", "recomputed from config.json")
        for layer in range(config.num_hidden_layers)
    ]
    if config.tie_word_embeddings:
        rows.append(Dropped("lm_head.weight", "tied to model.embed_tokens.weight"))
    return rows
