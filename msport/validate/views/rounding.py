"""Sentences on where values were rounded, and how the errors compare with this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import numpy as np

from msport.validate.precision import SIGNIFICAND, holds_every_value, unit
from msport.validate.reference.noise import Noise
from msport.validate.verdict.limits import default_tolerance


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The dtypes of weights on the Hub and in our checkpoint, and of the computation on both sides."""

    source: str
    stored: str
    ours: str
    reference: str


def explain_rounding(
    dtypes: Dtypes, largest: float, blocks: Sequence[float], noise: Noise | None = None
) -> tuple[str, ...]:
    """Sentences on where values were rounded, and how the measured errors compare with this.

    `largest` is the largest relative L2 error of the logits, `blocks` are those of isolated operations.
    """
    lines = [f"weights: {_of_weights(dtypes)}"]
    computed = f"compute: every result is rounded to {dtypes.ours}, by up to {unit(dtypes.ours):.1e}"
    if blocks:
        times = _times(max(blocks), unit(dtypes.ours))
        computed += f"; an isolated operation errs by at most {max(blocks):.1e}, {times} that"
    lines.append(computed)
    if dtypes.reference != "float32":
        step = f"{unit(dtypes.reference):.1e}"
        lines.append(f"reference: it computes in {dtypes.reference}, and rounds every result by up to {step}")
    if noise is not None:
        lines.append(f"noise: {_of_noise(noise, dtypes)}")
    lines.append(f"together: {_together(dtypes, largest, measured=noise is not None)}")
    return tuple(lines)


def _together(dtypes: Dtypes, largest: float, *, measured: bool) -> str:
    if not isfinite(largest):
        return "there are logits that are not finite, which rounding does not explain; an overflow would"
    said = f"the logits differ by at most {largest:.1e}, {_times(largest, _coarsest(dtypes))} the coarsest rounding"
    expected = default_tolerance(dtypes.ours, dtypes.reference)
    return said if measured or largest <= expected else f"{said}; rounding should keep them below {expected:g}"


def _of_noise(noise: Noise, dtypes: Dtypes) -> str:
    errors = noise.of("relative_l2")
    if noise.dtype != dtypes.reference:
        how = f"run again in {noise.dtype}"
    elif not holds_every_value(dtypes.stored, dtypes.source):
        how = f"with its weights rounded to {dtypes.stored}"
    else:
        how = "with its weights moved by half a unit in the last place"
    return (
        f"the reference itself, {how}, moves by {np.median(errors):.1e} (median) and at most {errors.max():.1e}"
        f" over {len(errors)} tokens"
    )


def _times(value: float, unit: float) -> str:
    ratio = value / unit
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.2g} times"


def _of_weights(dtypes: Dtypes) -> str:
    steps = [dtypes.source, dtypes.stored, dtypes.ours]
    narrowed = [after for before, after in pairwise(steps) if not holds_every_value(after, before)]
    if not narrowed:
        return f"exact, {dtypes.ours} holds every value of {dtypes.source}"
    coarsest = min(narrowed, key=lambda dtype: SIGNIFICAND[dtype])
    return f"rounded from {dtypes.source} to {coarsest}, each by up to {unit(coarsest):.1e}"


def _coarsest(dtypes: Dtypes) -> float:
    used = [dtypes.ours, dtypes.reference]
    if not holds_every_value(dtypes.ours, dtypes.source) or not holds_every_value(dtypes.stored, dtypes.source):
        used.append(dtypes.stored if dtypes.stored in SIGNIFICAND else dtypes.ours)
    return max(unit(dtype) for dtype in used)
