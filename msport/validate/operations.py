"""The operations of a decoder layer that both sides record, in the order in which they run.

Cells have the names of Transformers' modules, so one table finds an operation on both sides. A layer has two halves:
attention reads the layer's input, and the feed-forward reads `ATTENDED`, the residual stream between them.
"""

from __future__ import annotations

from typing import Any

ROTARY = "rotary_emb"  # the keys after RoPE
ATTENTION = "attention"  # the input of o_proj: scores, mask, sinks, softmax, values
ATTENDED = "attention residual"
MLP_NORM = "mlp norm"
ROUTER = "router"  # its logits
SHARES = "routing shares"
CHOSEN = "chosen experts"
O_PROJ, DOWN_PROJ = "o_proj", "down_proj"
ACTIVATION = "activation"  # the input of down_proj
EXPERTS = "experts"
OUTPUT = "layer output"

ATTENTION_HALF = (
    "input_layernorm",
    "q_proj",
    "k_proj",
    "v_proj",
    "q_norm",
    "k_norm",
    ROTARY,
    ATTENTION,
    "o_proj",
    "attention post-norm",
    ATTENDED,
)
MLP_HALF = (
    MLP_NORM,
    ROUTER,
    CHOSEN,
    SHARES,
    "gate_proj",
    "up_proj",
    ACTIVATION,
    "down_proj",
    EXPERTS,
    "mlp post-norm",
    OUTPUT,
)
OPERATIONS = ATTENTION_HALF + MLP_HALF

# Outside the layers: the embedding, the final norm, and the head.
EMBEDDING, FINAL_NORM, HEAD = "embed_tokens", "norm", "lm_head"


def find_modules(layer: Any) -> dict[str, Any]:
    """The modules of `layer` (a torch module or a MindSpore cell), keyed by the operation that they compute.

    `EXPERTS` is the whole mixture of experts; a dense feed-forward has `gate_proj`, `up_proj` and `down_proj` instead.
    """
    attention, block = layer.self_attn, feed_forward(layer)
    sandwich = getattr(layer, "pre_feedforward_layernorm", None)
    second = layer.post_attention_layernorm
    found = {
        "input_layernorm": layer.input_layernorm,
        **{name: getattr(attention, name, None) for name in ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm")},
        "o_proj": attention.o_proj,
        "attention post-norm": None if sandwich is None else second,
        MLP_NORM: second if sandwich is None else sandwich,
        "mlp post-norm": getattr(layer, "post_feedforward_layernorm", None),
    }
    router = find_router(block)
    if router is None:
        found |= {name: getattr(block, name) for name in ("gate_proj", "up_proj", "down_proj")}
    else:
        found |= {ROUTER: router, EXPERTS: block}
    return {name: found[name] for name in OPERATIONS if found.get(name) is not None}


def feed_forward(layer: Any) -> Any:
    """The second half of a layer, which has two possible names."""
    block = getattr(layer, "mlp", None)
    return layer.block_sparse_moe if block is None else block


def find_router(block: Any) -> Any:
    """The linear layer of the router, or None in a dense feed-forward."""
    if getattr(block, "experts", None) is None:
        return None
    router = getattr(block, "router", None)
    return block.gate if router is None else router


def tensors_of(station: str) -> tuple[str, ...]:
    """The prefixes of the names of the weights of a layer, the embedding or the head; a tied head has the
    embedding's.
    """
    beside = {EMBEDDING: ("model.embed_tokens.",), HEAD: ("model.norm.", "lm_head.", "model.embed_tokens.")}
    return beside.get(station, (f"model.{station}.",))
