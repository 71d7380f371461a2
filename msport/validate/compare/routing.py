"""Compares the experts that each side chose for a token, and how sure the reference was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.validate.compare.metrics import Bools
from msport.validate.operations import CHOSEN, ROUTER


@dataclass(frozen=True, slots=True)
class RoutingCheck:
    """The router's decisions over `tokens` tokens of one layer.

    `agreeing` tokens have the same experts along our own trajectory. `margin` is the largest lead in the reference, in
    logits, of the last chosen expert over the next one among the tokens that differ; 0 if none differs. In the isolated
    block, `near_ties` counts the tokens that differ with a lead within the error of the logits, and `wrong` counts
    those that differ with a larger lead.
    """

    tokens: int
    agreeing: int
    margin: float
    near_ties: int
    wrong: int

    @property
    def agreement(self) -> float:
        """The share of tokens with the same experts."""
        return self.agreeing / self.tokens if self.tokens else 1.0


def check_routing(
    reference: Mapping[str, Array], own: Mapping[str, Array], alone: Mapping[str, Array]
) -> tuple[RoutingCheck, Array]:
    """The decisions of one prompt along our `own` trajectory and in the isolated block (`alone`); and the tokens of the
    isolated block that a near tie explains, bool ``[tokens]``.
    """
    margins = _margins(reference[ROUTER], reference[CHOSEN].shape[1])
    followed = _same(reference[CHOSEN], own[CHOSEN])
    isolated = _same(reference[CHOSEN], alone[CHOSEN])
    doubt = 2 * np.abs(alone[ROUTER].astype(np.float64) - reference[ROUTER]).max(axis=-1)
    near = ~isolated & (margins <= doubt)
    differing = margins[~followed]
    check = RoutingCheck(
        tokens=len(margins),
        agreeing=int(followed.sum()),
        margin=float(differing.max()) if differing.size else 0.0,
        near_ties=int(near.sum()),
        wrong=int((~isolated & ~near).sum()),
    )
    return check, near


def near_ties(reference: Mapping[str, Array], own: Mapping[str, Array], most: float = np.inf) -> Bools:
    """The tokens, bool ``[tokens]``, whose last chosen expert leads the next one by at most twice the error of our
    router's logits.

    For these tokens rounding decides which expert is chosen. An error above `most` is not rounding, and excuses no more
    than `most`.
    """
    error = np.abs(own[ROUTER].astype(np.float64) - reference[ROUTER]).max(axis=-1)
    return np.asarray(_margins(reference[ROUTER], reference[CHOSEN].shape[1]) <= 2 * np.minimum(error, most))


def add_routing(first: RoutingCheck | None, second: RoutingCheck) -> RoutingCheck:
    """The sum of two sets of decisions."""
    if first is None:
        return second
    return RoutingCheck(
        first.tokens + second.tokens,
        first.agreeing + second.agreeing,
        max(first.margin, second.margin),
        first.near_ties + second.near_ties,
        first.wrong + second.wrong,
    )


def _same(reference: Array, ours: Array) -> Array:
    same: Array = (np.sort(reference, axis=-1) == np.sort(ours, axis=-1)).all(axis=-1)
    return same


def _margins(logits: Array, chosen: int) -> Array:
    """The lead of the last of the `chosen` largest logits over the next one, ``[tokens]``; infinite if there is no
    next one.
    """
    ranked = -np.sort(-logits.astype(np.float64), axis=-1)
    if chosen == ranked.shape[1]:
        return np.full(len(ranked), np.inf)
    margins: Array = ranked[:, chosen - 1] - ranked[:, chosen]
    return margins
