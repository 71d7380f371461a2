"""Percentiles and spread of repeated timings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Summary:
    """Samples of one quantity, taken in several repeats.

    Percentiles are over all samples together, interpolated linearly. `lowest` and `highest` are the smallest and the
    largest median of a repeat. `spread` is their difference divided by the median of the repeats: how much another run
    may differ. It is None for one repeat.
    """

    count: int
    mean: float
    minimum: float
    p50: float
    p95: float
    p99: float
    maximum: float
    lowest: float
    highest: float
    spread: float | None


def summarise(repeats: Sequence[Sequence[float]]) -> Summary:
    """The summary of the samples of each repeat. Raises `ValueError` if there are no samples."""
    measured = [repeat for repeat in repeats if len(repeat)]
    if not measured:
        raise ValueError("there are no samples")
    samples = np.concatenate([np.asarray(repeat, np.float64) for repeat in measured])
    p50, p95, p99 = np.percentile(samples, (50, 95, 99))
    medians = [median(repeat) for repeat in measured]
    return Summary(
        count=len(samples),
        mean=float(samples.mean()),
        minimum=float(samples.min()),
        p50=float(p50),
        p95=float(p95),
        p99=float(p99),
        maximum=float(samples.max()),
        lowest=min(medians),
        highest=max(medians),
        spread=spread(medians),
    )


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones."""
    return float(np.median(samples))


def spread(values: Sequence[float]) -> float | None:
    """The range of `values` as a share of their median; None for fewer than two."""
    if len(values) < 2:
        return None
    return (max(values) - min(values)) / median(values)
