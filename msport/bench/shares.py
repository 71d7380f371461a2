"""What a result means beside the machine's limits and beside another engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Result
from msport.sizing.costs import Costs


@dataclass(frozen=True, slots=True)
class Share:
    """What was reached a second beside the limit of the same run; one prefill or decode step needs `amount`."""

    amount: float
    achieved: float
    limit: float

    @property
    def of_limit(self) -> float:
        return self.achieved / self.limit

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "of_limit": self.of_limit}


def decode_share(result: Result, costs: Costs, limits: Limits) -> Share | None:
    """Bytes that a decode step must read over the time it took, in the median step; None without decode steps."""
    workload = result.workload
    positions = range(workload.prompt_tokens, workload.length - 1)
    nbytes = np.array([costs.decode_bytes(position, workload.batch) for position in positions])
    if not len(nbytes):
        return None
    rates = np.concatenate([nbytes / np.array(run.steps) for run in result.runs])
    return Share(float(np.median(nbytes)), float(np.median(rates)), limits.bandwidth.best)


def prefill_share(result: Result, costs: Costs, limits: Limits) -> Share:
    """Floating-point operations that the prompts need over the time the prefill took, in the median run."""
    workload = result.workload
    flops = workload.batch * costs.prefill_flops(workload.prompt_tokens)
    return Share(flops, flops / result.prefill.p50, limits.matmul.best)


def ratios(ours: Result, theirs: Result) -> Mapping[str, float]:
    """How many times as fast as `theirs` our median is; above 1 we are faster."""
    found = {
        "prefill": theirs.prefill.p50 / ours.prefill.p50,
        "first_token": theirs.first_token.p50 / ours.first_token.p50,
        "throughput": ours.throughput / theirs.throughput,
    }
    if ours.decode and theirs.decode:
        found["decode"] = theirs.decode.p50 / ours.decode.p50
    return found


def result_document(result: Result, costs: Costs, limits: Limits | None) -> dict[str, Any]:
    """The figures of a result, beside the samples from which they can be computed again."""
    decode, share = result.decode, limits and decode_share(result, costs, limits)
    return {
        **result.to_document(),
        "prefill_tokens_per_second": result.prefill_rate,
        "new_tokens_per_second": result.throughput,
        "prefill_seconds": asdict(result.prefill),
        "first_token_seconds": asdict(result.first_token),
        "decode_seconds": decode and asdict(decode),
        "total_seconds": asdict(result.total),
        "memory_bandwidth": share and share.to_document(),
        "arithmetic": limits and prefill_share(result, costs, limits).to_document(),
    }
