"""The measured models: their shapes, random checkpoints of them, and the progress of a measurement."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synthetic import GPT_OSS_20B

from msport import convert_checkpoint
from msport.progress import Step
from msport.sample import write_sample

# gpt-oss with eight small layers, and with two layers of the 20b's width; a Llama that is larger than every cache; the
# others have hidden size 1024, 12 layers, and the proportions of Qwen2.5 7B, Mistral 7B v0.1, Gemma 2 2B, and Qwen3
# 30B-A3B with a quarter of its experts.
_GPT_OSS = {
    "head_dim": 64,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "experts_per_token": 4,
    "sliding_window": 128,
    "vocab_size": 32000,
}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 12, "vocab_size": 32000}
SHAPES: dict[str, Mapping[str, Any]] = {
    "gpt-oss": {
        **_GPT_OSS,
        "hidden_size": 768,
        "intermediate_size": 768,
        "num_hidden_layers": 8,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
    },
    "gpt-oss-20b": {
        **GPT_OSS_20B,
        **_GPT_OSS,
        "num_hidden_layers": 2,
    },
    "llama": {
        **_LARGE,
        "attention_bias": False,
        "hidden_size": 1536,
        "intermediate_size": 4096,
        "mlp_bias": False,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rope_scaling": None,
        "tie_word_embeddings": False,
    },
    "qwen2": {
        **_LARGE,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
    },
    "mistral": {
        **_LARGE,
        "intermediate_size": 3584,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "sliding_window": 4096,
    },
    "gemma2": {
        **_LARGE,
        "intermediate_size": 4096,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "sliding_window": 4096,
    },
    "qwen3-moe": {
        **_LARGE,
        "attention_bias": False,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 384,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "use_sliding_window": False,
    },
}


@contextmanager
def checkpoint(
    model: str, folder: str | None, overrides: Mapping[str, Any] | None = None, dtype: str = "float32"
) -> Iterator[tuple[Path, Path]]:
    """A random checkpoint of the model's shape and its conversion to `dtype`, in two folders, during this context."""
    with tempfile.TemporaryDirectory(prefix="msport-benchmark-", dir=folder) as parent:
        source, converted = Path(parent) / "source", Path(parent) / "converted"
        family = model.removesuffix("-20b")
        write_sample(family, source, overrides={**SHAPES[model], **(overrides or {})})
        convert_checkpoint(source, converted, dtype=dtype)
        yield source, converted


def print_progress(step: Step) -> None:
    if sys.stderr.isatty():
        print(f"\r{step.phase} {step.done}/{step.total}\033[K", end="", file=sys.stderr, flush=True)
