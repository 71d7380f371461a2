"""The noise: how much rounding alone changes the reference. Our errors are compared with it.

The reference runs a second time on the beginning of each prompt, rounded as our side is: its weights get the dtypes of
our weights, and it computes in our dtype. If this changes nothing (float32 on both sides), every weight moves at random
by half a unit in the last place instead. ``rounded`` makes the run, ``rules`` compares our errors with it.

In a recording the noise is ``noise.DTYPE.I`` ``[measured tokens, fields]`` for prompt number I, and
``noise.DTYPE.drift`` ``[stations, 1]`` and ``noise.DTYPE.router`` ``[layers, 1]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.validate.compare.metrics import Floats, TokenErrors
from msport.validate.recording import Recording

# The fields of `TokenErrors` that are kept for each token, in this order.
FIELDS = ("relative_l2", "root_kl", "max_abs", "margin_error", "size")

# The second run uses this share of all tokens, so that it costs at most half of the reference's time. Short runs use
# more, because loading takes most of their time.
_SHARE = 0.4
_FEWEST = 320


@dataclass(frozen=True, slots=True)
class NoisePlan:
    """The plan of the second run.

    `lengths` holds the number of tokens at the beginning of each prompt. `dtypes` are those in which our side may
    compute, `reference` is that of the first run, and `narrowed_to` is the narrower dtype to which a conversion
    rounded the weights, or None.
    """

    lengths: tuple[int, ...]
    dtypes: tuple[str, ...]
    reference: str
    narrowed_to: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Noise:
    """How much the reference changes by the rounding of a computation in `dtype`.

    `tokens` holds for each prompt float64 ``[n, len(FIELDS)]`` of its first n tokens. `drift` is the largest relative
    L2 error of the residual stream after each station: the embedding, then each layer. `router` is, for each layer, the
    median over tokens of the largest error of the router's logits; 0 in a dense layer.
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
    """The number of tokens measured of each prompt: short prompts whole, and an equal number of each long one."""
    budget = max(_FEWEST, int(_SHARE * sum(lengths)))
    longest = max(lengths, default=0)
    while longest > 1 and sum(min(length, longest) for length in lengths) > budget:
        longest -= 1
    return tuple(min(length, longest) for length in lengths)


def fields_of(errors: TokenErrors) -> Floats:
    """The kept fields of `errors`, float64 ``[n, len(FIELDS)]``."""
    columns: list[npt.NDArray[Any]] = [getattr(errors, field) for field in FIELDS]
    return np.asarray(np.stack(columns, axis=-1), np.float64)


def noise_name(dtype: str) -> str:
    """The prefix of the tensor names of the noise in `dtype`."""
    return f"noise.{dtype}"


def noise_tensors(noise: Noise) -> dict[str, npt.NDArray[Any]]:
    """`noise` as the tensors of a recording."""
    name = noise_name(noise.dtype)
    arrays = {f"{name}.{number}": tokens for number, tokens in enumerate(noise.tokens)}
    stations = {f"{name}.{part}": np.array(getattr(noise, part))[:, None] for part in ("drift", "router")}
    return {key: array.astype(np.float32) for key, array in (arrays | stations).items()}


def read_noise(recording: Recording, dtype: str, prompts: int) -> Noise:
    """The noise in `dtype` for `prompts` prompts."""
    name = noise_name(dtype)
    drift, router = (tuple(recording.read(f"{name}.{part}")[:, 0].tolist()) for part in ("drift", "router"))
    tokens = tuple(recording.read(f"{name}.{number}").astype(np.float64) for number in range(prompts))
    return Noise(dtype, tokens, drift, router)
