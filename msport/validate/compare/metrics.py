"""Measures the errors of logits token by token; ``rules`` decides whether they pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Logits = npt.NDArray[np.floating[Any]]

TOP = 5
# Decimal exponents of the bins of logit differences, four bins per decade; the last bin has no upper end.
DIFFERENCE_EDGES = tuple(exponent / 4 for exponent in range(-36, 5))

# Elements measured at a time: the float64 temporaries stay below about 150 MB for any vocabulary.
_ELEMENTS = 1 << 21


@dataclass(frozen=True, slots=True)
class TokenErrors:
    """The errors at each of n tokens; every array is ``[n]``.

    `relative_l2` is ``|ours - reference| / |reference|`` over the vocabulary, `max_abs` the largest difference, `kl`
    the divergence KL(reference || ours) in nats. `top1` says whether ours ranks the reference's top-1 first. `margin`
    is the lead of the reference's top-1 over its top-2, `margin_error` the change of this lead in ours, and `regret`
    the lead of the reference's top-1 over our top-1; all three are differences of logits. `overlap` is the share of the
    reference's top 5 that is in our top 5. `likeliest` and `likeliest_ours` are the tokens that each side ranks first.
    `size` is the largest magnitude of the reference's logits. If logits are not finite, the errors are infinite and
    `finite` is false. `differences` ``[n, bins]`` is a histogram of the differences of logits, divided by the root mean
    square of the reference's logits at that token. Bin i begins at 10 to the power of ``DIFFERENCE_EDGES[i]``, the
    first one at 0; a token whose logits are not finite is not counted.
    """

    relative_l2: Floats
    max_abs: Floats
    kl: Floats
    top1: Bools
    overlap: Floats
    finite: Bools
    margin: Floats
    margin_error: Floats
    regret: Floats
    size: Floats
    likeliest: Counts
    likeliest_ours: Counts
    differences: Counts

    def __len__(self) -> int:
        return len(self.relative_l2)

    @property
    def root_kl(self) -> Floats:
        """The square root of `kl`. It is proportional to the errors of the logits; `kl` itself grows with their
        square.
        """
        return np.asarray(np.sqrt(self.kl))

    def __getitem__(self, tokens: slice | Bools) -> TokenErrors:
        """The errors of some of the tokens."""
        return TokenErrors(**{field.name: getattr(self, field.name)[tokens] for field in fields(self)})


_NO_TOKENS = TokenErrors(
    **{
        **{field.name: np.empty(0) for field in fields(TokenErrors)},
        **{name: np.empty(0, bool) for name in ("top1", "finite")},
        **{name: np.empty(0, np.int64) for name in ("likeliest", "likeliest_ours")},
        "differences": np.empty((0, len(DIFFERENCE_EDGES)), np.int64),
    }
)


def measure(reference: Logits, ours: Logits) -> TokenErrors:
    """Errors of the logits `ours` against `reference`, both ``[n, vocab]``; sums are accumulated in float64."""
    if reference.shape != ours.shape or reference.ndim != 2:
        raise ValueError(f"logits of shape {ours.shape} cannot be compared with {reference.shape}")
    rows = max(1, _ELEMENTS // reference.shape[1])
    blocks = (slice(begin, begin + rows) for begin in range(0, len(reference), rows))
    return concatenate(_measure(reference[block], ours[block]) for block in blocks)


def concatenate(parts: Iterable[TokenErrors]) -> TokenErrors:
    """The errors of consecutive chunks of tokens as one object; empty for no chunks."""
    kept = [_NO_TOKENS, *parts]
    return TokenErrors(
        **{f.name: np.concatenate([getattr(part, f.name) for part in kept]) for f in fields(TokenErrors)}
    )


def relative_l2(reference: npt.NDArray[Any], ours: npt.NDArray[Any]) -> Floats:
    """``|ours - reference| / |reference|`` along the last axis, in float64; infinite where either is not finite.

    A reference of zeros gives 0 if ours is zero too, and infinity otherwise.
    """
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        error = np.linalg.norm(np.subtract(ours, reference, dtype=np.float64), axis=-1)
        size = np.linalg.norm(reference.astype(np.float64), axis=-1)
        ratio = np.where(error == 0.0, 0.0, error / size)
    return np.where(np.isfinite(error) & np.isfinite(size), ratio, np.inf)


def _measure(reference: Logits, ours: Logits) -> TokenErrors:
    finite = np.isfinite(reference).all(axis=-1) & np.isfinite(ours).all(axis=-1)
    # Rows that are not finite are measured as zeros and then marked, so that no NaN passes a comparison.
    theirs = np.where(finite[:, None], reference, 0.0).astype(np.float64)
    mine = np.where(finite[:, None], ours, 0.0).astype(np.float64)
    error = np.abs(mine - theirs)
    first, second = _top_two(theirs)
    rows = np.arange(len(theirs))
    margin, chosen = theirs[rows, first] - theirs[rows, second], mine.argmax(axis=-1)
    top1 = mine[rows, first] >= mine[rows, chosen]
    return TokenErrors(
        relative_l2=np.where(finite, relative_l2(theirs, mine), np.inf),
        max_abs=np.where(finite, error.max(axis=-1), np.inf),
        kl=np.where(finite, _kl_divergence(theirs, mine), np.inf),
        top1=finite & top1,
        overlap=np.where(finite, _top_overlap(theirs, mine), 0.0),
        finite=finite,
        margin=np.where(finite, margin, 0.0),
        margin_error=np.where(finite, np.abs(mine[rows, first] - mine[rows, second] - margin), np.inf),
        regret=np.where(finite, np.where(top1, 0.0, theirs[rows, first] - theirs[rows, chosen]), np.inf),
        size=np.abs(theirs).max(axis=-1),
        likeliest=first,
        likeliest_ours=chosen,
        differences=np.where(finite[:, None], _count_differences(error, theirs), 0),
    )


def _count_differences(error: Floats, reference: Floats) -> Counts:
    size = np.sqrt(np.square(reference).mean(axis=-1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.log10(error / size)
    first, bins = DIFFERENCE_EDGES[0], len(DIFFERENCE_EDGES)
    index = np.clip(np.nan_to_num((exponents - first) * 4, nan=0.0, posinf=bins, neginf=0.0), 0, bins - 1).astype(
        np.intp
    )
    counts = np.zeros((len(error), bins), np.int64)
    for row, each in enumerate(index):
        counts[row] = np.bincount(each, minlength=bins)
    return counts


def _top_two(logits: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The columns of the largest and the second largest logit, ``[n]`` both; equal if the vocabulary has one token."""
    first = logits.argmax(axis=-1)
    if logits.shape[1] == 1:
        return first, first
    others = logits.copy()
    others[np.arange(len(logits)), first] = -np.inf
    return first, others.argmax(axis=-1)


def _kl_divergence(reference: Floats, ours: Floats) -> Floats:
    log_p, log_q = _log_softmax(reference), _log_softmax(ours)
    divergence: Floats = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    return np.maximum(divergence, 0.0)  # rounding can make it slightly negative


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _top_overlap(reference: Floats, ours: Floats) -> Floats:
    count = min(TOP, reference.shape[1])
    theirs, mine = (np.argpartition(logits, -count, axis=-1)[:, -count:] for logits in (reference, ours))
    shared = (theirs[:, :, None] == mine[:, None, :]).any(axis=-1)
    return np.asarray(shared.mean(axis=-1, dtype=np.float64))
