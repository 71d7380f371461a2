"""The common part of the families' sample configs."""

from __future__ import annotations

from typing import Any


def tiny_config(name: str, model_type: str, **own: Any) -> dict[str, Any]:
    """A ``config.json`` for weights of a few megabytes. `own` adds or replaces fields for the family."""
    shared = {
        "architectures": [name],
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.02,
        "intermediate_size": 192,
        "model_type": model_type,
        "num_attention_heads": 8,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "use_cache": True,
        "vocab_size": 1024,
    }
    return dict(sorted({**shared, **own}.items()))
