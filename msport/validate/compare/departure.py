"""Describes how an operation's values differ from the reference's, in words that point at the cause."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.validate.compare.metrics import Floats, relative_l2

# The largest error of a simple explanation, as a share of the departure.
_FIT = 0.05
_NEARLY_ALL = 0.98
# Describes a departure that is not our fault.
NOT_FINITE_THERE = "not finite in the reference itself"
# Relative error of lengths after a rotation, in any dtype; vectors that differ in other ways have larger errors.
_LENGTH = 1e-4


def describe_departure(
    reference: Array,
    ours: Array,
    errors: Floats,
    threshold: float,
    start: int = 0,
    others: Mapping[str, Array] | None = None,
) -> str:
    """What is wrong with `ours`; it and `reference` are ``[tokens, features]``. Empty if no error is above `threshold`.

    `errors` are the relative L2 errors of the tokens, the first of which has position `start`. `others` holds the
    results of the reference's other operations by name.
    """
    wrong = ~(errors <= threshold)
    if not wrong.any():
        return ""
    finite = np.isfinite(reference).all(axis=-1)
    if not finite.all():
        return f"{NOT_FINITE_THERE}, at {int((~finite).sum())} of {len(finite)} tokens"
    finite = np.isfinite(ours).all(axis=-1)
    if not finite.all():
        return f"not finite at {int((~finite).sum())} of {len(finite)} tokens"
    return ", ".join(part for part in (_where(wrong, start), _what(reference, ours, wrong, threshold, others)) if part)


def _where(wrong: Array, start: int) -> str:
    first = int(wrong.argmax())
    if wrong.mean() >= _NEARLY_ALL:
        return "every token"
    if wrong[first:].mean() >= _NEARLY_ALL and len(wrong) - first > 1:
        return f"every token from position {start + first} on"
    return f"{int(wrong.sum())} of {len(wrong)} tokens from position {start + first} on"


def _what(reference: Array, ours: Array, wrong: Array, threshold: float, others: Mapping[str, Array] | None) -> str:
    theirs, mine = reference[wrong].astype(np.float64), ours[wrong].astype(np.float64)
    for name, values in (others or {}).items():
        if values.shape == reference.shape and (relative_l2(values[wrong], mine) <= threshold).all():
            return f"equals the reference's {name}"
    difference = mine - theirs
    size = float(np.linalg.norm(difference))
    scale = float((mine * theirs).sum() / max(float((theirs * theirs).sum()), 1e-300))
    if np.linalg.norm(mine - scale * theirs) <= _FIT * size:
        return f"{scale:.4g} times the reference"
    if len(theirs) > 2 and np.linalg.norm(difference - difference.mean(axis=0)) <= _FIT * size:
        return "the same offset at every token, as of a bias"
    columns = np.square(difference).sum(axis=0)
    strongest = int(columns.argmax())
    if difference.shape[1] > 2 and columns[strongest] >= (1 - _FIT) * columns.sum():
        return f"only feature {strongest}"
    if difference.shape[1] > 2 and len(theirs) > 2:
        return _of_scales(theirs, mine, size) or _of_order(theirs, mine, threshold) or _of_lengths(theirs, mine)
    return ""


def _of_scales(theirs: Floats, mine: Floats, size: float) -> str:
    """A different factor for each token: a norm with another epsilon, or another normalisation of routing weights."""
    scales = (mine * theirs).sum(axis=-1) / np.maximum((theirs * theirs).sum(axis=-1), 1e-300)
    if np.linalg.norm(mine - scales[:, None] * theirs) > _FIT * size:
        return ""
    return f"{scales.min():.4g} to {scales.max():.4g} times the reference, by token"


def _of_order(theirs: Floats, mine: Floats, threshold: float) -> str:
    """Heads or halves of heads in another order: the same columns in other places."""
    weights = np.random.default_rng(0).standard_normal(len(theirs))
    ranked, reference = np.argsort(weights @ mine), np.argsort(weights @ theirs)
    distance = np.linalg.norm(mine[:, ranked] - theirs[:, reference], axis=0)
    alike = distance <= threshold * np.linalg.norm(theirs) / np.sqrt(theirs.shape[1])
    if alike.mean() < _NEARLY_ALL:  # almost equal numbers may have been ranked in another order
        return ""
    order = np.empty_like(ranked)
    order[ranked] = reference  # column i of ours is column order[i] of theirs
    moved = int((order != np.arange(len(order))).argmax())
    return f"the reference's features in another order, number {moved} being its {order[moved]}"


def _of_lengths(theirs: Floats, mine: Floats) -> str:
    """A different angle of RoPE turns a vector but keeps its length."""
    lengths, others = np.linalg.norm(theirs, axis=-1), np.linalg.norm(mine, axis=-1)
    return "turned, of the same length as the reference" if np.allclose(others, lengths, rtol=_LENGTH, atol=0) else ""
