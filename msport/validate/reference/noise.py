"""How far rounding alone moves the reference: what an error of ours is held against.

The reference runs a second time on the beginning of each prompt, rounded as our side is: its weights take the dtypes
that ours took, and it computes in the dtype that we compute in. Where that changes nothing (float32 on both sides),
every weight moves by half a unit in the last place at random instead. ``rounded`` makes the run, ``rules``
holds our errors against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.validate.compare.metrics import Floats, TokenErrors

# What is kept of each token, in this order: the names are those of `TokenErrors`.
FIELDS = ("relative_l2", "root_kl", "max_abs", "margin_error", "size")

# The second run takes this share of all tokens, so that it costs at most half of the reference's time; short runs are
# measured on more, because loading takes most of their time.
_SHARE = 0.4
_FEWEST = 320


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """What the second run is to measure.

    `lengths` says how many tokens of each prompt, from its beginning. `dtypes` are those that our side may compute in,
    `reference` the one of the first run, `stored` the narrower one that a conversion rounded the weights to, if it did.
    """

    lengths: tuple[int, ...]
    dtypes: tuple[str, ...]
    reference: str
    stored: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Noise:
    """How far the reference moves where our side computes in `dtype`.

    `tokens` holds for each prompt ``[n, len(FIELDS)]``, float64, of its first n tokens. `drift` is the largest relative
    L2 error of the residual stream after each station: the embedding, then each layer. `router` is the usual largest
    error of a token's router logits in each layer of a mixture, 0 in a dense layer.
    """

    dtype: str
    tokens: tuple[Floats, ...]
    drift: tuple[float, ...]
    router: tuple[float, ...]

    def of(self, field: str, number: int | None = None) -> Floats:
        """`field` of the tokens of prompt `number`, or of all prompts."""
        parts = self.tokens if number is None else (self.tokens[number],)
        column = FIELDS.index(field)
        return np.concatenate([part[:, column] for part in parts]) if parts else np.empty(0)


def noise_lengths(lengths: Sequence[int]) -> tuple[int, ...]:
    """How many tokens of each prompt are measured: the short prompts whole, of the long ones equally many."""
    budget = max(_FEWEST, int(_SHARE * sum(lengths)))
    longest = max(lengths, default=0)
    while longest > 1 and sum(min(length, longest) for length in lengths) > budget:
        longest -= 1
    return tuple(min(length, longest) for length in lengths)


def fields_of(errors: TokenErrors) -> Floats:
    """What is kept of `errors`, ``[n, len(FIELDS)]``."""
    columns: list[npt.NDArray[Any]] = [getattr(errors, field) for field in FIELDS]
    return np.asarray(np.stack(columns, axis=-1), np.float64)
