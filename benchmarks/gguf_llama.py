"""A Llama checkpoint in the Hub's layout as a GGUF file with the same weights, without a vocabulary.

Matrices keep their bfloat16 values, and norms become float32, as llama.cpp's own converter writes them. Tokens are only
numbers here, so llama.cpp gets the size of the vocabulary and no texts. Needs the package ``gguf``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from msport.architectures import ModelConfig, load_config
from msport.checkpoint import Checkpoint, open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, cast

Array = np.ndarray[Any, Any]

_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """The name of a Llama's tensor in a GGUF file. Raises `ValueError` for a tensor that it does not have there."""
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if found and found[2] in _IN_LAYER:
        return f"blk.{found[1]}.{_IN_LAYER[found[2]]}.weight"
    if name not in _OUTSIDE:
        raise ValueError(f"{name}: no tensor of a plain Llama; llama.cpp has no name for it")
    return _OUTSIDE[name]


def interleaved(matrix: Array, heads: int) -> Array:
    """The rows of a query or key projection ``[heads * head_dim, inputs]`` in the order of llama.cpp's RoPE.

    The Hub's layout rotates element i of a head with element i + head_dim / 2; llama.cpp rotates neighbours.
    """
    return np.ascontiguousarray(matrix.reshape(heads, 2, -1, matrix.shape[-1]).swapaxes(1, 2)).reshape(matrix.shape)


def gguf_tensors(checkpoint: Checkpoint, config: ModelConfig) -> Iterator[tuple[str, Array]]:
    """Name and values of each tensor: float32 norms, and matrices as the bits of bfloat16."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, info in checkpoint.tensors.items():
        values = checkpoint.view(name)
        if len(info.shape) == 1:
            yield gguf_name(name), cast(values, info.dtype, FLOAT32)
            continue
        matrix = cast(values, info.dtype, BFLOAT16)
        projection = name.split(".")[-2]
        yield gguf_name(name), interleaved(matrix, heads[projection]) if projection in heads else matrix


def write_gguf(folder: Path, path: Path) -> None:
    """Writes the Llama in `folder` to `path` in bfloat16. Raises `ValueError` for what is not a plain Llama."""
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType

    config = load_config(folder)
    if config.architecture != "LlamaForCausalLM" or config.rope.rope_type != "default":
        raise ValueError(f"{folder}: only a plain Llama is written as GGUF here")
    writer = GGUFWriter(path, "llama")
    writer.add_file_type(LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    with open_checkpoint(folder) as checkpoint:
        for name, values in gguf_tensors(checkpoint, config):
            kind = GGMLQuantizationType.F32 if values.ndim == 1 else GGMLQuantizationType.BF16
            writer.add_tensor(name, values, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    writer.close()
