"""The effect of rounding: the default tolerance of each dtype, and sentences on where values were rounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite

import numpy as np

from msport.errors import UsageError
from msport.validate.reference.noise import Noise

# Bits of the significand, including the implicit one.
SIGNIFICAND = {"float32": 24, "float16": 11, "bfloat16": 8}

# Relative L2 error of a token's logits. Rounding to p bits changes a value by up to 2**-p, in each of about a hundred
# operations before the logits, in random directions. The total is about 10 to 30 times 2**-p. In float32 this is far
# below the effect of any fault, so the tolerance there is what a user would notice.
_TOLERANCE = {"float32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}

# Relative L2 error of one operation with the reference's own input: larger than rounding.
_ROUNDING = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True, slots=True)
class Dtypes:
    """The dtypes of weights on the Hub and in our checkpoint, and of the computation on both sides."""

    source: str
    stored: str
    ours: str
    reference: str


def default_tolerance(ours: str, reference: str = "float32") -> float:
    """The tolerance for logits computed in the dtype `ours`, compared with logits computed in `reference`."""
    return max(_TOLERANCE[ours], _TOLERANCE[reference])


def rounding(*dtypes: str) -> float:
    """The largest error of an operation by rounding, if the sides round to `dtypes`."""
    return max(_ROUNDING[dtype] for dtype in dtypes)


def unit(dtype: str) -> float:
    """The largest relative error of rounding to `dtype`."""
    return float(2.0 ** -SIGNIFICAND[dtype])


def check_reachable(tolerance: float | None, ours: str, reference: str = "float32") -> None:
    """Raises `UsageError` for a tolerance below one rounding of the dtypes, before a long run begins."""
    coarsest = max((ours, reference), key=unit)
    if tolerance is not None and tolerance < unit(coarsest):
        raise UsageError(
            f"the tolerance {tolerance:g} is below one rounding to {coarsest}, {unit(coarsest):.1e}: no port can"
            f" meet it; leave it out, or give more, such as {default_tolerance(ours, reference):g}"
        )


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
    elif not holds(dtypes.stored, dtypes.source):
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
    narrowed = [after for before, after in pairwise(steps) if not holds(after, before)]
    if not narrowed:
        return f"exact, {dtypes.ours} holds every value of {dtypes.source}"
    coarsest = min(narrowed, key=lambda dtype: SIGNIFICAND[dtype])
    return f"rounded from {dtypes.source} to {coarsest}, each by up to {unit(coarsest):.1e}"


def holds(wide: str, narrow: str) -> bool:
    """Whether every value of `narrow` is one of `wide`."""
    return wide == narrow or wide == "float32" or narrow == "mxfp4"


def _coarsest(dtypes: Dtypes) -> float:
    used = [dtypes.ours, dtypes.reference]
    if not holds(dtypes.ours, dtypes.source) or not holds(dtypes.stored, dtypes.source):
        used.append(dtypes.stored if dtypes.stored in SIGNIFICAND else dtypes.ours)
    return max(unit(dtype) for dtype in used)
