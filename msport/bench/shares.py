"""A result compared with the limits of the machine, and with the result of another engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Result
from msport.sizing.costs import Costs


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes or operations per second, `achieved` and at the `limit`. One prefill or decode step needs `amount` of
    them.
    """

    amount: float
    achieved: float
    limit: float

    @property
    def of_limit(self) -> float:
        """Achieved divided by the limit."""
        return self.achieved / self.limit


def decode_share(result: Result, costs: Costs, limits: Limits) -> Share | None:
    """Bytes that a decode step must read, divided by the time of the median step; None without decode steps."""
    workload = result.workload
    positions = range(workload.prompt_tokens, workload.length - 1)
    nbytes = np.array([costs.decode_bytes(position, workload.batch) for position in positions])
    if not len(nbytes):
        return None
    rates = np.concatenate([nbytes / np.array(run.step_seconds) for run in result.runs])
    return Share(float(np.median(nbytes)), float(np.median(rates)), limits.bandwidth.best)


def prefill_share(result: Result, costs: Costs, limits: Limits) -> Share:
    """Floating-point operations of the prompts, divided by the time of the prefill in the median run."""
    workload = result.workload
    flops = workload.batch * costs.prefill_flops(workload.prompt_tokens)
    return Share(flops, flops / result.prefill.p50, limits.matmul.best)


def ratios(ours: Result, theirs: Result) -> Mapping[str, float]:
    """The medians of `theirs` divided by those of `ours`; above 1, ours are faster."""
    found = {
        "prefill": theirs.prefill.p50 / ours.prefill.p50,
        "first_token": theirs.first_token.p50 / ours.first_token.p50,
        "throughput": ours.throughput / theirs.throughput,
    }
    if ours.decode and theirs.decode:
        found["decode"] = theirs.decode.p50 / ours.decode.p50
    return found
