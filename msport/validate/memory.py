"""Whether both sides of a verdict fit in memory."""

from __future__ import annotations

from msport.sizing.costs import Costs
from msport.sizing.fit import estimate, estimate_reference, estimate_verdict, only_portable
from msport.sizing.free import available_memory


def must_stream(
    costs: Costs,
    tokens: int,
    reference_dtype: str | None,
    *,
    on_device: bool = False,
    available: int | None = None,
) -> bool:
    """Whether the port, of `costs`, or the reference does not fit in memory as a whole for prompts of `tokens`
    tokens.

    `reference_dtype` is None if the reference does not run. `on_device`: the port computes on another device than the
    CPU. `available` are the free bytes of the host, None: what is free now.
    """
    portable = only_portable(on_device=on_device)
    own = estimate(costs, tokens, 1, portable=portable, on_device=on_device, every_logit=True)
    reference = None if reference_dtype is None else estimate_reference(costs.config, reference_dtype, tokens)
    return estimate_verdict(own, reference) > (available_memory() if available is None else available)
