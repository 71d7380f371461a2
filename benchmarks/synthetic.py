"""Synthetic gpt-oss checkpoints with real shapes in the Hub's layout, written at the speed of the disk.

`msport sample` draws every value from a distribution. Here each tensor repeats one block of random bytes, which costs
the converter the same. Or only the headers are written, followed by a sparse hole of the tensors' size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msport.architectures import ARCHITECTURES, Role
from msport.checkpoint import DType, ShardWriter, index_document, safetensors
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, cast
from msport.checkpoint.index import INDEX_NAME
from msport.checkpoint.layout import Layout, nbytes_of
from msport.convert.shards import cut, shard_names
from msport.encodings import MXFP4, Plain

_ARCHITECTURE = ARCHITECTURES["GptOssForCausalLM"]
_MAX_SHARD_NBYTES = 5 * 10**9
_BLOCK_NBYTES = 1 << 24
# The range of gpt-oss's scales: 2**-17 to 2**0.
_SCALES = (110, 128)

GPT_OSS_20B: Mapping[str, Any] = {
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "head_dim": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 24,
    "num_local_experts": 32,
    "vocab_size": 201088,
    "sliding_window": 128,
}
GPT_OSS_120B: Mapping[str, Any] = {**GPT_OSS_20B, "num_hidden_layers": 36, "num_local_experts": 128}
# Layers with a quarter of the 20b's experts allow finer steps of size.
_SMALL: Mapping[str, Any] = {**GPT_OSS_20B, "num_local_experts": 8, "vocab_size": 32768}


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor in the Hub's form."""

    name: str
    dtype: DType
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return nbytes_of(self.dtype, self.shape)


def small_model(nbytes: int) -> dict[str, Any]:
    """The shapes of a small model whose output is nearest to `nbytes`."""
    one, two = (output_nbytes({**_SMALL, "num_hidden_layers": layers}) for layers in (1, 2))
    return {**_SMALL, "num_hidden_layers": max(1, 1 + round((nbytes - one) / (two - one)))}


def source_nbytes(shapes: Mapping[str, Any]) -> int:
    """Bytes of the tensors that `write_checkpoint` writes."""
    return sum(tensor.nbytes for tensor in _tensors(_config(shapes)))


def output_nbytes(shapes: Mapping[str, Any]) -> int:
    """Bytes of all parameters in bfloat16."""
    weights = _ARCHITECTURE.weights(_ARCHITECTURE.parse(_config(shapes), Path("config.json")))
    return sum(nbytes_of(BFLOAT16, weight.shape) for weight in weights)


def write_checkpoint(folder: Path, shapes: Mapping[str, Any]) -> None:
    """Writes a whole checkpoint with packed experts and random weights."""
    blocks = _random_blocks()
    for path, layout in _shards(folder, shapes):
        with ShardWriter(path, layout) as writer:
            for tensor in layout.tensors.values():
                kind = "scales" if tensor.name.endswith("_scales") else tensor.dtype.name
                for offset in range(0, tensor.nbytes, _BLOCK_NBYTES):
                    writer.write(tensor.name, offset, blocks[kind][: tensor.nbytes - offset])


def write_headers(folder: Path, shapes: Mapping[str, Any]) -> None:
    """Writes a checkpoint whose files have headers and full sizes but take no space on disk."""
    for path, layout in _shards(folder, shapes):
        with path.open("wb") as file:
            for offset, literal in layout.literals:
                file.seek(offset)
                file.write(literal)
            file.truncate(layout.file_size)


def _shards(folder: Path, shapes: Mapping[str, Any]) -> Iterator[tuple[Path, Layout]]:
    """Writes config and index, then yields the path and the tensors of each shard."""
    folder.mkdir()
    config = _config(shapes)
    groups = cut(sorted(_tensors(config), key=lambda tensor: tensor.name), _MAX_SHARD_NBYTES)
    names = shard_names(len(groups), "safetensors")
    files = {tensor.name: name for name, group in zip(names, groups, strict=True) for tensor in group}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / INDEX_NAME).write_text(index_document(files, sum(tensor.nbytes for group in groups for tensor in group)))
    for name, group in zip(names, groups, strict=True):
        specs = [(tensor.name, tensor.dtype, tensor.shape) for tensor in group]
        yield folder / name, safetensors.plan_layout(specs, {"format": "pt"})


def _config(shapes: Mapping[str, Any]) -> dict[str, Any]:
    layers = shapes["num_hidden_layers"]
    kinds = ["full_attention" if layer % 2 else "sliding_attention" for layer in range(layers)]
    return {**_ARCHITECTURE.sample_config(), **shapes, "layer_types": kinds}


def _tensors(config: Mapping[str, Any]) -> Iterator[Tensor]:
    for weight in _ARCHITECTURE.weights(_ARCHITECTURE.parse(config, Path("config.json"))):
        encoding = MXFP4 if weight.role == Role.EXPERTS else Plain(BFLOAT16)
        for part in encoding.parts(weight.name, weight.matrix):
            yield Tensor(part.name, part.dtype, part.shape)


def _random_blocks() -> dict[str, NDArray[np.uint8]]:
    generator = np.random.default_rng(0)
    normal = generator.standard_normal(_BLOCK_NBYTES // 2, np.float32) * np.float32(0.02)
    return {
        "uint8": generator.integers(0, 256, _BLOCK_NBYTES, np.uint8),
        "scales": generator.integers(*_SCALES, _BLOCK_NBYTES, np.uint8),
        "bfloat16": cast(normal, FLOAT32, BFLOAT16).view(np.uint8),
    }
