"""Random weights: large enough that every feature of a model matters, small enough that its logits stay finite."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from msport.checkpoint import DType
from msport.checkpoint.dtypes import FLOAT32, UINT8, Array, cast

# Values drawn from one generator. A large tensor is made of pieces that do not depend on each other.
_PIECE = 1 << 20

# Root mean square of the sixteen MXFP4 codes, drawn uniformly.
_CODE_RMS = 2.926
_SCALE_BIAS = 127


@dataclass(frozen=True, slots=True)
class Normal:
    """A normal distribution with standard deviation `gain` or, with `fan_in`, `gain` / sqrt(inputs of the layer)."""

    gain: float
    mean: float = 0.0
    fan_in: bool = True

    def deviation(self, inputs: int) -> float:
        return self.gain / math.sqrt(inputs) if self.fan_in else self.gain


Rules = tuple[tuple[str, Normal], ...]

# The first pattern that matches a tensor's name is used. Inputs of a linear layer come from a norm and have deviation
# 1.
_SHARED: Rules = (
    ("*norm.weight", Normal(0.2, mean=1.0, fan_in=False)),
    ("*bias", Normal(0.3, fan_in=False)),
    ("*.embed_tokens.weight", Normal(1.0, fan_in=False)),
    ("lm_head.weight", Normal(2.5)),
    ("*.[qk]_proj.weight", Normal(1.5)),
    ("*.router.weight", Normal(2.0)),
    ("*.mlp.gate.weight", Normal(2.0)),
    ("*", Normal(1.0)),
)
# A tied embedding is also the head. If it were large, a token would mostly predict itself.
_TIED: Rules = (("*.embed_tokens.weight", Normal(2.5)),)
_BY_FAMILY: dict[str, Rules] = {
    "gpt_oss": (
        ("*.sinks", Normal(1.5, mean=2.0, fan_in=False)),
        ("*.[qk]_proj.weight", Normal(1.0)),
        # A twelfth of gate and up exceeds the clamp at 7; the output is large.
        ("*.experts.gate_up_proj*", Normal(4.0)),
        ("*.experts.down_proj*", Normal(0.1)),
    ),
    "gemma2": (
        # Norms multiply by 1 + weight. Logits reach the final cap; the output of the layers outweighs the embedding.
        ("*.embed_tokens.weight", Normal(4.0)),
        ("*.post_*_layernorm.weight", Normal(0.2, mean=9.0, fan_in=False)),
        ("*norm.weight", Normal(0.2, fan_in=False)),
    ),
}


def distribution(name: str, model_type: str, *, tied: bool) -> Normal:
    """The distribution of tensor `name` in the family `model_type`; `tied` if the embedding is also the head."""
    rules: Rules = (*_BY_FAMILY.get(model_type, ()), *(_TIED if tied else ()), *_SHARED)
    return next(normal for pattern, normal in rules if fnmatchcase(name, pattern))


def random_pieces(
    name: str, dtype: DType, shape: tuple[int, ...], normal: Normal, seed: int
) -> Iterator[tuple[int, Array]]:
    """A whole tensor as pairs of byte offset and flat array in storage form; equal for equal `name` and `seed`.

    ``_blocks`` are uniform bytes. ``_scales`` are chosen so that the decoded values have the deviation of `normal`.
    """
    size = math.prod(shape)
    for begin in range(0, size, _PIECE):
        generator = np.random.Generator(np.random.SFC64([seed, zlib.crc32(name.encode()), begin // _PIECE]))
        count = min(_PIECE, size - begin)
        if dtype == UINT8:
            piece = _random_bytes(generator, name, shape, normal, count)
        else:
            piece = _random_values(generator, normal, _inputs(shape), count, dtype)
        yield begin * dtype.itemsize, piece


def _random_values(generator: np.random.Generator, normal: Normal, inputs: int, count: int, dtype: DType) -> Array:
    values = generator.standard_normal(count, np.float32)
    values *= np.float32(normal.deviation(inputs))
    values += np.float32(normal.mean)
    return cast(values, FLOAT32, dtype)


def _random_bytes(
    generator: np.random.Generator, name: str, shape: tuple[int, ...], normal: Normal, count: int
) -> Array:
    if name.endswith("_blocks"):
        return np.frombuffer(generator.bytes(count), np.uint8)
    inputs = 32 * shape[-1]
    scale = round(math.log2(normal.deviation(inputs) / _CODE_RMS)) + _SCALE_BIAS
    return generator.integers(scale - 1, scale + 1, count, np.uint8, endpoint=True)


def _inputs(shape: tuple[int, ...]) -> int:
    """Number of inputs of the layer: linear layers are ``[out, in]``, stacked experts ``[E, in, out]``."""
    return shape[1] if len(shape) > 1 else shape[0]
