"""The sizes that every decoder-only model shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msport.architectures.fields import ConfigFields
from msport.architectures.rope import RopeConfig, parse_rope

# Transformers' two names of the activation x * sigmoid(x).
SILU = ("silu", "swish")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A parsed ``config.json``: from it the table of tensors is made, and every layer of the network.

    `windows` holds for each layer the number of tokens that a query sees, itself included, or None for all. The options
    from `qkv_bias` on are what families add to the plain decoder. `qk_norm` normalises each head of queries and keys
    before it is rotated; `sinks` adds one logit per head to the softmax. `attention_scale` multiplies the scores, None
    means ``head_dim ** -0.5``. A soft-cap bounds x to ``cap * tanh(x / cap)``. `activation` is a name of
    ``msmodels.layers.activations``.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    rope: RopeConfig
    windows: tuple[int | None, ...]
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sinks: bool = False
    attention_scale: float | None = None
    attn_logit_softcapping: float | None = None
    final_logit_softcapping: float | None = None
    activation: str = "silu"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseConfig(ModelConfig):
    """A model with a mixture of experts in the layers of `sparse_layers`, and a dense feed-forward in the others.

    The routing weights of a token come from a softmax over all experts; with `norm_topk_prob`, those of the chosen
    experts sum to 1.
    """

    moe_intermediate_size: int
    num_local_experts: int
    num_experts_per_tok: int
    norm_topk_prob: bool
    sparse_layers: tuple[bool, ...]


def parse_decoder(
    fields: ConfigFields, *, rope_theta: float, rms_norm_eps: float = 1e-6, tie_word_embeddings: bool = False
) -> dict[str, Any]:
    """Parses the fields up to `rope` except `architecture`. The keywords are the family's defaults in Transformers."""
    fields.fixed("partial_rotary_factor", 1.0, "msport rotates whole heads only")
    for name, value in (("is_causal", True), ("use_bidirectional_attention", False)):
        fields.fixed(name, value, "msport lets a token see only itself and earlier ones")
    heads = fields.integer("num_attention_heads")
    key_value_heads = fields.integer("num_key_value_heads", heads)
    if heads % key_value_heads:
        raise fields.error("num_key_value_heads", f"({key_value_heads}) must divide num_attention_heads ({heads})")
    hidden_size = fields.integer("hidden_size")
    head_dim = fields.integer("head_dim", hidden_size // heads)
    if head_dim % 2:
        raise fields.error("head_dim", f"is {head_dim}; rotary embedding needs an even number")
    max_position_embeddings = fields.integer("max_position_embeddings")
    return {
        "vocab_size": fields.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer("intermediate_size"),
        "num_hidden_layers": fields.integer("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": key_value_heads,
        "head_dim": head_dim,
        "max_position_embeddings": max_position_embeddings,
        "rms_norm_eps": fields.number("rms_norm_eps", rms_norm_eps),
        "tie_word_embeddings": fields.boolean("tie_word_embeddings", tie_word_embeddings),
        "rope": parse_rope(fields, default_theta=rope_theta, max_position_embeddings=max_position_embeddings),
    }


def layer_windows(
    fields: ConfigFields, layer_types: tuple[str, ...], sliding_window: int | None
) -> tuple[int | None, ...]:
    """The window of each layer: `sliding_window` for the sliding ones in `layer_types`, None for the others."""
    if sliding_window is None and "sliding_attention" in layer_types:
        raise fields.error("layer_types", "has sliding layers, but 'sliding_window' is not set")
    return tuple(sliding_window if kind == "sliding_attention" else None for kind in layer_types)


def uniform_windows(fields: ConfigFields, num_hidden_layers: int, sliding_window: int | None) -> tuple[int | None, ...]:
    """The window of each layer in a family whose layers are all alike: `sliding_window`. Refuses other
    `layer_types`.
    """
    kind = "full_attention" if sliding_window is None else "sliding_attention"
    layer_types = [kind] * num_hidden_layers
    fields.fixed("layer_types", layer_types, f"Transformers gives every layer of this family {kind}")
    return (sliding_window,) * num_hidden_layers
