"""Faults put into a copy of a converted checkpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from msport.checkpoint import read_manifest
from msport.checkpoint.dtypes import FLOAT32, FLOATING, cast


def change_config(converted: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of `converted` at `folder` whose config.json went through `change`."""
    shutil.copytree(converted, folder)
    data = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    change(data)
    (folder / "config.json").write_text(json.dumps(data))
    return folder


def change_tensor(converted: Path, folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of `converted` at `folder` whose tensor `name`, floating ones seen as float32, went through `change`."""
    shutil.copytree(converted, folder)
    change_bytes(folder, name, change)
    return folder


def change_bytes(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Puts tensor `name` of the converted `folder`, floating ones seen as float32, through `change`."""
    record = read_manifest(folder).tensors[name]
    ((begin, end),) = record.extents
    content = bytearray((folder / record.file).read_bytes())
    stored = np.frombuffer(bytes(content[begin:end]), record.dtype.storage).reshape(record.shape)
    if record.dtype not in FLOATING:
        content[begin:end] = change(stored).astype(stored.dtype).tobytes()
    else:
        values = change(cast(stored, record.dtype, FLOAT32))
        content[begin:end] = cast(np.ascontiguousarray(values, np.float32), FLOAT32, record.dtype).tobytes()
    (folder / record.file).write_bytes(content)
