"""The limits of errors: by the dtypes, by the reference's noise, or by the user."""

from __future__ import annotations

from dataclasses import dataclass

from msport.errors import UsageError
from msport.validate.precision import unit
from msport.validate.reference.noise import Noise
from msport.validate.verdict.rules import LARGEST_FACTOR

# Relative L2 error of a token's logits. Rounding to p bits changes a value by up to 2**-p, in each of about a hundred
# operations before the logits, in random directions. The total is about 10 to 30 times 2**-p. In float32 this is far
# below the effect of any fault, so the tolerance there is what a user would notice.
_TOLERANCE = {"float32": 1e-2, "float16": 2e-2, "bfloat16": 1e-1}

# Relative L2 error of one operation with the reference's own input: larger than rounding.
_ROUNDING = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest relative L2 errors that are allowed.

    `noise` is the reference's own, None if only the tolerance decides. `tolerance` is the limit for a token's logits,
    `operation` for an isolated operation, which departs beyond it, and `drift` for the residual stream after each
    station, the embedding first; its last one is used for all later stations. `router` holds, for each layer, the error
    of the router's logits that rounding explains; it is empty without noise.
    """

    noise: Noise | None
    tolerance: float
    operation: float
    drift: tuple[float, ...]
    router: tuple[float, ...]


def set_limits(
    tolerance: float | None, noise: Noise | None, rule: str, ours: str, reference: str, stored: str
) -> Limits:
    """The limits by `rule` if our side computes in the dtype `ours`.

    The reference computes in `reference`. `stored` is the dtype to which the conversion rounded weights; that of the
    reference if it kept every value. If `tolerance` is None, the dtypes and the noise decide; it is then never below
    rounding.
    """
    if tolerance is None:
        tolerance = default_tolerance(ours, reference)
        if noise is not None:
            tolerance = max(tolerance, LARGEST_FACTOR * float(noise.of("relative_l2").max(initial=0.0)))
    operation = rounding(ours, reference, stored)
    drift = min(operation, tolerance)
    if noise is None or rule != "rounding":
        return Limits(None, tolerance, operation, (drift,), ())
    return Limits(
        noise,
        tolerance,
        operation,
        tuple(min(drift, LARGEST_FACTOR * max(measured, unit(ours))) for measured in noise.drift),
        tuple(LARGEST_FACTOR * measured for measured in noise.router),
    )


def default_tolerance(ours: str, reference: str = "float32") -> float:
    """The tolerance for logits computed in the dtype `ours`, compared with logits computed in `reference`."""
    return max(_TOLERANCE[ours], _TOLERANCE[reference])


def rounding(*dtypes: str) -> float:
    """The largest error of an operation by rounding, if the sides round to `dtypes`."""
    return max(_ROUNDING[dtype] for dtype in dtypes)


def check_reachable(tolerance: float | None, ours: str, reference: str = "float32") -> None:
    """Raises `UsageError` for a tolerance below one rounding of the dtypes, before a long run begins."""
    coarsest = max((ours, reference), key=unit)
    if tolerance is not None and tolerance < unit(coarsest):
        raise UsageError(
            f"the tolerance {tolerance:g} is below one rounding to {coarsest}, {unit(coarsest):.1e}: no port can"
            f" meet it; leave it out, or give more, such as {default_tolerance(ours, reference):g}"
        )
