"""Reading and changing checkpoint folders in tests."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msport.checkpoint import DType, Header, ShardWriter, TensorInfo, open_checkpoint, safetensors
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, Array, cast

Tensors = dict[str, tuple[DType, Array]]


def read_tensors(folder: Path) -> Tensors:
    """All tensors of a folder, in storage form."""
    with open_checkpoint(folder) as checkpoint:
        return {name: (tensor.dtype, checkpoint.read(name)) for name, tensor in checkpoint.tensors.items()}


def write_tensors(folder: Path, tensors: Mapping[str, tuple[DType, Array]]) -> None:
    """Replace all weights of a folder by one file."""
    for stale in [*folder.glob("model*.safetensors"), *folder.glob("*.index.json")]:
        stale.unlink()
    layout = safetensors.plan_layout((name, dtype, values.shape) for name, (dtype, values) in tensors.items())
    with ShardWriter(folder / "model.safetensors", layout) as writer:
        for name, (_, values) in tensors.items():
            writer.write(name, 0, np.ascontiguousarray(values))


def change_tensors(folder: Path, change: Callable[[Tensors], None]) -> None:
    """Let `change` edit the tensors of a folder in place."""
    tensors = read_tensors(folder)
    change(tensors)
    write_tensors(folder, tensors)


def change_config(folder: Path, **fields: Any) -> None:
    """Replace fields of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **fields}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def as_float32(dtype: DType, values: Array) -> Array:
    return cast(values, dtype, FLOAT32)


def to_bfloat16(values: Array) -> Array:
    return cast(values.astype(np.float32), FLOAT32, BFLOAT16)


@dataclass
class MemoryCatalog:
    """A checkpoint that exists only as arrays: catalog and reader at once."""

    arrays: dict[str, tuple[DType, Array]] = field(default_factory=dict)
    folder: Path = Path("memory")
    reads: list[str] = field(default_factory=list)
    headers: dict[Path, Header] = field(default_factory=dict)

    @property
    def tensors(self) -> dict[str, TensorInfo]:
        return {
            name: TensorInfo(name, dtype, values.shape, ((0, values.nbytes),))
            for name, (dtype, values) in self.arrays.items()
        }

    @property
    def files(self) -> dict[str, Path]:
        return dict.fromkeys(self.arrays, self.folder / "model.safetensors")

    def read_into(self, name: str, offset: int, buffer: Array) -> None:
        self.reads.append(name)
        content = self.arrays[name][1].tobytes()[offset : offset + buffer.nbytes]
        assert len(content) == buffer.nbytes
        buffer.reshape(-1).view(np.uint8)[:] = np.frombuffer(content, np.uint8)

    def abandon(self) -> None:
        pass
