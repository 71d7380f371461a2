"""Rotary position embedding: frequencies of each variant, and the tables of cos and sin that a graph reads.

Everything is rounded where Transformers rounds (float32 frequencies, angles and tables). At position 5000, another
order of rounding changes an angle by 1e-4, which is visible in logits. Source: ``transformers/modeling_rope_utils.py``.
"""

from __future__ import annotations

import math

import numpy as np
from mindspore import Tensor, nn, ops

from msport.architectures import RopeConfig
from msport.checkpoint.dtypes import Array
from msport.msmodels.layers.parameters import constant


class RotaryEmbedding(nn.Cell):
    """Maps ``positions [batch, seq]`` to cos and sin, float32 ``[batch, seq, 1, head_dim / 2]`` each."""

    def __init__(self, rope: RopeConfig, head_dim: int, max_length: int) -> None:
        super().__init__()
        angles = np.outer(np.arange(max_length, dtype=np.float32), inverse_frequencies(rope, head_dim))
        factor = np.float32(attention_factor(rope))
        self.cos = constant(np.cos(angles) * factor)
        self.sin = constant(np.sin(angles) * factor)

    def construct(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos = ops.expand_dims(ops.gather(self.cos, positions, 0), 2)
        sin = ops.expand_dims(ops.gather(self.sin, positions, 0), 2)
        return cos, sin


def inverse_frequencies(rope: RopeConfig, head_dim: int) -> Array:
    """Radians per position of each pair of dimensions, ``[head_dim / 2]`` float32."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    # float64 rounded once. torch's vectorised pow agrees with it in almost all last bits; NumPy's float32 pow does not.
    wavelengths = (np.float64(rope.theta) ** exponents.astype(np.float64)).astype(np.float32)
    frequencies = np.float32(1) / wavelengths
    if rope.rope_type == "linear":
        return frequencies / np.float32(rope.factor)
    if rope.rope_type == "llama3":
        return _llama3(frequencies, rope)
    if rope.rope_type == "yarn":
        return _yarn(wavelengths, rope, head_dim)
    return frequencies


def attention_factor(rope: RopeConfig) -> float:
    """The factor of cos and sin in YaRN; 1 for every other variant."""
    if rope.rope_type != "yarn":
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return _magnitude(rope.factor, rope.mscale) / _magnitude(rope.factor, rope.mscale_all_dim)
    return _magnitude(rope.factor, 1.0)


def _magnitude(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _yarn(wavelengths: Array, rope: RopeConfig, head_dim: int) -> Array:
    """Keeps the fast frequencies, which turn often within the original context, interpolates the slow ones, and
    blends between.
    """

    def dimension(rotations: float) -> float:
        length = rope.original_max_position_embeddings
        return head_dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    ramp = (np.arange(head_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = np.float32(1) - np.clip(ramp, 0, 1)
    interpolated = np.float32(1) / (np.float32(rope.factor) * wavelengths)
    return interpolated * (np.float32(1) - kept) + np.float32(1) / wavelengths * kept


def _llama3(frequencies: Array, rope: RopeConfig) -> Array:
    """Divides the slow frequencies by `factor`, keeps the fast ones, and blends between. Source: Llama 3.1's
    reference code.
    """
    length, low, high = rope.original_max_position_embeddings, rope.low_freq_factor, rope.high_freq_factor
    wavelengths = np.float32(2 * math.pi) / frequencies
    scaled = np.where(wavelengths > np.float32(length / low), frequencies / np.float32(rope.factor), frequencies)
    smooth = (np.float32(length) / wavelengths - np.float32(low)) / np.float32(high - low)
    blended = (1 - smooth) * scaled / np.float32(rope.factor) + smooth * scaled
    between = (wavelengths >= np.float32(length / high)) & (wavelengths <= np.float32(length / low))
    return np.where(between, blended, scaled).astype(np.float32)
