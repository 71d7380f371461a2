"""Random weights in any encoding: as arrays, as tensors of a graph, and as a converted checkpoint."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from convert.hub_folder import Tensors, read_tensors, write_tensors
from mindspore import Parameter, ParameterTuple, Tensor
from mindspore.common import np_dtype

from msport.architectures import ARCHITECTURES, QUANTISED, load_config
from msport.checkpoint import dtypes
from msport.checkpoint.dtypes import BFLOAT16, FLOAT32, FLOATING, INT8, INT32, Array, DType
from msport.checkpoint.index import NAME_MAP_NAME
from msport.encodings import Encoding, Part, Plain, stored_shape

Stored = list[tuple[DType, Array]]


def random_parts(encoding: Encoding, shape: tuple[int, ...], seed: int = 0) -> Stored:
    """The parts of a random matrix of `shape`, whose values are about ``1 / sqrt(inputs)``."""
    rng = np.random.default_rng(seed)
    deviation = 1 / math.sqrt(shape[-1])
    return [(part.dtype, _random(part, encoding, deviation, rng)) for part in encoding.parts("w", shape)]


def _random(part: Part, encoding: Encoding, deviation: float, rng: np.random.Generator) -> Array:
    kind = part.name.rpartition("_")[2]
    if part.dtype == INT32:
        rows = np.broadcast_to(np.arange(part.shape[-1], dtype=np.int32), part.shape)
        return rng.permuted(rows, axis=-1)
    if kind == "offsets":
        values = rng.integers(-3, 4, part.shape).astype(np.float32)
    elif part.dtype in FLOATING and kind == "scales":
        largest = {"int4": 4.6, "int8": 74}[encoding.name]
        values = rng.uniform(0.5, 1.5, part.shape).astype(np.float32) * np.float32(deviation / largest)
    elif part.dtype in FLOATING:
        values = rng.standard_normal(part.shape, np.float32) * np.float32(deviation)
    elif kind == "scales":
        middle = 127 + round(math.log2(deviation / 2.9))
        return rng.integers(middle - 1, middle + 2, part.shape).astype(np.uint8)
    else:
        codes = rng.integers(0, 256, part.shape).astype(np.uint8)
        return codes.view(np.int8) if part.dtype == INT8 else codes
    return dtypes.cast(values, FLOAT32, part.dtype)


def decoded(encoding: Encoding, parts: Stored) -> Array:
    """The matrix ``[..., outputs, inputs]`` in float32."""
    arrays = [array for _, array in parts]
    if isinstance(encoding, Plain) or arrays[1].ndim < 3:
        return encoding.decode(arrays, FLOAT32)
    return np.stack([encoding.decode([array[e] for array in arrays], FLOAT32) for e in range(len(arrays[0]))])


def tensors(parts: Stored, name: str = "weight") -> Any:
    """The matrix `name` as a layer holds it."""
    return ParameterTuple(
        [Parameter(_tensor(*part), name=f"{name}_{number}", requires_grad=False) for number, part in enumerate(parts)]
    )


def _tensor(dtype: DType, array: Array) -> Tensor:
    array = np.ascontiguousarray(array)
    return Tensor.from_numpy(array.view(np_dtype.bfloat16) if dtype == BFLOAT16 else array)


def encode_folder(converted: Path, folder: Path, encoding: Encoding) -> tuple[Path, Path]:
    """Two copies of the float32 checkpoint `converted` below `folder`: one with random matrices in `encoding`
    wherever a conversion quantises, and one with the same values in float32.
    """
    config = load_config(converted)
    rows = {row.name: row for row in ARCHITECTURES[config.architecture].weights(config)}
    packed, plain = Tensors(), Tensors()
    for number, (name, found) in enumerate(read_tensors(converted).items()):
        if rows[name].role not in QUANTISED:
            packed[name] = plain[name] = found
            continue
        shape = rows[name].matrix
        parts = random_parts(encoding, shape, number)
        packed |= {part.name: each for part, each in zip(encoding.parts(name, shape), parts, strict=True)}
        values = decoded(encoding, parts)
        whole = values if values.ndim < 3 else values.swapaxes(-1, -2)
        assert whole.shape == stored_shape(shape)
        plain[name] = (FLOAT32, np.ascontiguousarray(whole))
    return _write(converted, folder / "packed", packed), _write(converted, folder / "plain", plain)


def _write(converted: Path, folder: Path, contents: Tensors) -> Path:
    shutil.copytree(converted, folder, ignore=shutil.ignore_patterns(NAME_MAP_NAME))
    write_tensors(folder, contents)
    return folder
