"""The rows that `against_llama_cpp.py` prints: one side with one encoding, beside the limits of the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Session, merge_sessions
from msport.bench.measure.statistics import Summary
from msport.sizing.units import format_size


@dataclass(frozen=True, slots=True)
class Time:
    """Milliseconds: the median of all runs of all processes, and the best run."""

    median: float
    best: float

    def times_as_fast(self, other: Time) -> Time:
        """The times of `other` divided by these: above 1, this side is faster."""
        return Time(other.median / self.median, other.best / self.best)


@dataclass(frozen=True, slots=True)
class Row:
    """One `side` with weights in `kind`.

    `decode` is the time of a token, `prefill` that of a prompt of so many tokens. `token_nbytes` are the bytes of
    weights and cache that a token needs, `flops` the operations of each prompt. A row with a `problem` has no figures.
    """

    side: str
    kind: str
    problem: str = ""
    decode: Time | None = None
    prefill: Mapping[int, Time] | None = None
    token_nbytes: int = 0
    flops: Mapping[int, int] | None = None
    peak_resident: int = 0

    @property
    def title(self) -> str:
        """The side and how it holds the weights."""
        return f"{self.side} {self.kind}"

    def share_of_bandwidth(self, limits: Limits) -> float:
        """The time that reading `token_nbytes` takes at the measured bandwidth, divided by the median of a token."""
        assert self.decode is not None
        return self.token_nbytes / limits.bandwidth.best / (self.decode.median / 1e3)

    def share_of_products(self, limits: Limits, tokens: int) -> float:
        """The time of the operations at the measured peak of float32, divided by the median of the prompt."""
        assert self.prefill is not None
        assert self.flops is not None
        return self.flops[tokens] / limits.matmul.best / (self.prefill[tokens].median / 1e3)


def figures(sessions: Sequence[Session]) -> dict[str, Any]:
    """The fields of a `Row` that were measured in the processes `sessions`."""
    merged = merge_sessions(sessions)
    decoding = next(result.decode for result in merged.results if result.decode)
    prefill = {result.workload.prompt_tokens: _time(result.prefill) for result in merged.results}
    return {"decode": _time(decoding), "prefill": prefill, "peak_resident": max(merged.peaks)}


def _time(summary: Summary) -> Time:
    """`lowest` is the median of the best run: one token that came early is no figure."""
    return Time(1e3 * summary.p50, 1e3 * summary.lowest)


def table(rows: Sequence[Row], limits: Limits) -> Iterator[str]:
    """The lines of one encoding: a row for each side, then what msport's figures are beside each other side's."""
    ours = next(row for row in rows if row.side == "msport")
    for row in rows:
        yield _line(row, limits)
    for row in rows:
        if row is not ours and not row.problem and not ours.problem:
            yield f"  {_beside(ours, row)}"


def heading(prompts: Sequence[int]) -> Iterator[str]:
    """The two lines above a table."""
    above = "".join(f"{f'prefill of {tokens}, ms':>27}" for tokens in prompts)
    yield f"{'':24}{'decode, ms a token':>36}{above}{'peak':>10}"
    yield f"{'':24}{'median':>9}{'best':>9}{'limit':>8}{'read':>10}" + f"{'median':>11}{'best':>8}{'limit':>8}" * len(
        prompts
    )


def _line(row: Row, limits: Limits) -> str:
    if row.problem:
        return f"{row.title:24}  {row.problem}"
    assert row.decode is not None
    assert row.prefill is not None
    text = f"{row.title:24}{row.decode.median:9.2f}{row.decode.best:9.2f}{row.share_of_bandwidth(limits):8.0%}"
    text += f"{format_size(row.token_nbytes):>10}"
    for tokens, time in row.prefill.items():
        text += f"{time.median:11.1f}{time.best:8.1f}{row.share_of_products(limits, tokens):8.0%}"
    return text + f"{format_size(row.peak_resident):>10}"


def _beside(ours: Row, theirs: Row) -> str:
    ratios = ratios_of(ours, theirs)
    each = ", ".join(f"{name} {ratio.median:.2f} (best {ratio.best:.2f})" for name, ratio in ratios.items())
    return f"times as fast as {theirs.title}: {each}"


def ratios_of(ours: Row, theirs: Row) -> dict[str, Time]:
    """How many times as fast `ours` is, by name of the figure. Both rows have figures."""
    assert ours.decode is not None
    assert theirs.decode is not None
    assert ours.prefill is not None
    assert theirs.prefill is not None
    prefill = {f"prefill {n}": time.times_as_fast(theirs.prefill[n]) for n, time in ours.prefill.items()}
    return {"decode": ours.decode.times_as_fast(theirs.decode), **prefill}
