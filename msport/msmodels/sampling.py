"""Chooses the next token from logits: greedy, temperature, top-k, top-p.

The order and the kept sets are those of Transformers' warpers (``generation/logits_process.py``): temperature, then the
`top_k` highest logits, then the smallest set of the most probable tokens whose probability reaches `top_p`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.errors import MsportError, UsageError

FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How tokens are sampled. Raises `UsageError` for a value out of range.

    `temperature` 0 is greedy; the other fields then have no effect. `top_k` 0 keeps every token.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise UsageError(
                f"temperature is {self.temperature}; give 0 for greedy decoding or a finite number above 0"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise UsageError(f"top_p is {self.top_p}; give a number above 0 and at most 1 (1 keeps every token)")
        if self.top_k < 0:
            raise UsageError(f"top_k is {self.top_k}; give 0 to keep every token or a positive number of tokens")


class Sampler:
    """Samples tokens from logits with its own random generator; equal seeds give equal tokens."""

    def __init__(self, config: SamplingConfig, seed: int = 0) -> None:
        if seed < 0:
            raise UsageError(f"seed is {seed}; give 0 or a positive integer")
        self.config = config
        self._generator = np.random.default_rng(seed)

    def choose(self, logits: FloatArray) -> npt.NDArray[np.int64]:
        """One token id for each row of `logits` [batch, vocab]. Raises `MsportError` if a row is not finite."""
        if not np.isfinite(logits.max(axis=-1)).all():
            raise MsportError("the model's logits are not finite; run in float32, or check it with 'msport validate'")
        if self.config.temperature == 0.0:
            return np.asarray(logits.argmax(axis=-1), np.int64)
        return np.array([self._draw(row) for row in logits], np.int64)

    def _draw(self, logits: FloatArray) -> int:
        tokens, probabilities = candidates(logits, self.config)
        cumulative = probabilities.cumsum()
        # The generator draws from [0, 1); scaled by the sum as computed, the search cannot step past the last token.
        chosen = cumulative.searchsorted(self._generator.random() * cumulative[-1], side="right")
        return int(tokens[chosen])


def candidates(logits: FloatArray, config: SamplingConfig) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """The token ids that may be sampled from `logits` [vocab] at a temperature above 0, and their probabilities."""
    tokens = np.arange(logits.size)
    scaled = logits.astype(np.float64) / config.temperature
    if 0 < config.top_k < scaled.size:
        kept = scaled >= np.partition(scaled, -config.top_k)[-config.top_k]
        tokens, scaled = tokens[kept], scaled[kept]
    probabilities = _softmax(scaled)
    if config.top_p < 1.0:
        nucleus = _nucleus(probabilities, config.top_p)
        tokens, probabilities = tokens[nucleus], _normalised(probabilities[nucleus])
    return tokens, probabilities


def _nucleus(probabilities: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.intp]:
    # All tokens below (1 - top_p) / vocab together have less than 1 - top_p: none of them is kept, so none is sorted.
    possible = np.flatnonzero(probabilities > (1.0 - top_p) / probabilities.size)
    if possible.size == 0:  # possible by rounding in a uniform distribution
        possible = np.arange(probabilities.size)
    ascending = possible[probabilities[possible].argsort(kind="stable")]
    below = probabilities.sum() - probabilities[possible].sum()
    kept = below + probabilities[ascending].cumsum() > 1.0 - top_p
    kept[-1] = True
    return np.asarray(ascending[kept])


def _softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return _normalised(np.exp(logits - logits.max()))


def _normalised(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    total: np.float64 = weights.sum()
    return weights / total
