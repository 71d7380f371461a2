"""What quantisation costs: the reference on the quantised weights beside the reference on the original ones.

Our side takes no part, so rounding and faults of the port cannot hide in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import numpy as np
import numpy.typing as npt

from msport.validate.compare.metrics import Floats, Logits, measure


@dataclass(frozen=True, slots=True)
class TextCost:
    """The cost on one text of so many `tokens`.

    `kl_mean` and `kl_max` are of KL(original || quantised) in nats over all tokens, `top1` is the share of tokens after
    which both rank the same token first. `perplexity` and `perplexity_original` are those of the `predicted` tokens,
    each of which has one before it; None without any.
    """

    name: str
    tokens: int
    kl_mean: float
    kl_max: float
    top1: float
    predicted: int
    perplexity: float | None
    perplexity_original: float | None


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost on `texts` and on all of them together, beside the `original`; `max_kl` bounds the mean KL of all."""

    original: str
    texts: tuple[TextCost, ...]
    total: TextCost
    max_kl: float | None = None

    @property
    def within(self) -> bool:
        """Whether the mean KL is within the bound; true without one."""
        return self.max_kl is None or self.total.kl_mean <= self.max_kl


@dataclass(slots=True)
class CostMeter:
    """Adds up the cost of one text, piece by piece."""

    name: str
    kl: list[Floats] = field(default_factory=list)
    same: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    surprise: list[Floats] = field(default_factory=list)
    surprise_original: list[Floats] = field(default_factory=list)

    def add(self, original: Logits, quantised: Logits, following: Sequence[int]) -> None:
        """Adds tokens with their logits ``[n, vocab]`` on both sides; `following` are the tokens after them, one fewer
        at the end of a text.
        """
        errors = measure(original, quantised)
        self.kl.append(errors.kl)
        self.same.append(errors.top1)
        self.surprise.append(_surprise(quantised, following))
        self.surprise_original.append(_surprise(original, following))

    def result(self) -> TextCost:
        """The cost of all that was added."""
        return _summarise(self.name, [self])


def total_cost(original: str, meters: Sequence[CostMeter], max_kl: float | None) -> Cost:
    """The cost of each text and of all of them."""
    return Cost(original, tuple(meter.result() for meter in meters), _summarise("all", meters), max_kl)


def _summarise(name: str, meters: Sequence[CostMeter]) -> TextCost:
    kl = np.concatenate([piece for meter in meters for piece in meter.kl])
    same = np.concatenate([piece for meter in meters for piece in meter.same])
    surprise = np.concatenate([piece for meter in meters for piece in meter.surprise])
    original = np.concatenate([piece for meter in meters for piece in meter.surprise_original])
    return TextCost(
        name,
        len(kl),
        float(kl.mean()),
        float(kl.max()),
        float(same.mean()),
        len(surprise),
        _perplexity(surprise),
        _perplexity(original),
    )


def _perplexity(surprise: Floats) -> float | None:
    mean = float(surprise.mean()) if len(surprise) else None
    return None if mean is None else exp(mean) if mean < 700 else float("inf")


def _surprise(logits: Logits, following: Sequence[int]) -> Floats:
    """The negative logarithm of the probability of each of the `following` tokens, one row of logits at a time."""
    found = np.empty(len(following))
    for row, token in enumerate(following):
        wide = logits[row].astype(np.float64)
        largest = wide.max()
        found[row] = largest + np.log(np.exp(wide - largest).sum()) - wide[token]
    return found
