"""Everything that a benchmark measured, and what is needed to measure it again. Only data; `report` renders it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from msport.architectures import ModelConfig
from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Result, Session, Startup
from msport.bench.shares import Share, decode_share, prefill_share
from msport.bench.suites import Unavailable
from msport.sizing.costs import Costs
from msport.sizing.fit import Need, estimate, make_costs


@dataclass(frozen=True, slots=True)
class Setup:
    """What was measured, on what machine, and how often.

    `checkpoint` is the SHA-256 over the tensors' hashes in the manifest; `device_memory` are the bytes of a device that
    has its own; `threads` is how many processors every process was given, of the kind `processor`; `load_average` is
    how many others wanted one in the minute before; `started` is the time in UTC; `suite` None is a plain grid.
    """

    folder: str
    architecture: str
    source: str
    revision: str | None
    checkpoint: str
    device: str
    device_memory: int | None
    processor: str
    threads: int
    load_average: float
    started: str
    suite: str | None
    warmup: int
    repeats: int
    processes: int
    seed: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """The outcome of a benchmark.

    `limits` holds the machine's own speed for each dtype that was measured; `sessions` one `Session` of msport for each
    dtype and batch size, and `baselines` one of Transformers for each set of workloads, if it was asked for and ran.
    `unavailable` is what could not be measured. `notes` say what limits what the figures mean. `config` is None in a
    report read from a file: bytes, operations and what was expected cannot be counted again.
    """

    setup: Setup
    limits: dict[str, Limits]
    sessions: tuple[Session, ...]
    baselines: tuple[Session, ...] = ()
    unavailable: tuple[Unavailable, ...] = ()
    notes: tuple[str, ...] = ()
    config: ModelConfig | None = None

    @property
    def startups(self) -> tuple[Startup, ...]:
        """How each of `sessions` came up."""
        return tuple(session.startup for session in self.sessions if session.startup is not None)

    def costs(self, session: Session) -> Costs:
        """What the model must move and multiply in the dtype of `session`; raises `ValueError` without a config."""
        if self.config is None:
            raise ValueError("a report read from a file does not hold the model's config")
        return make_costs(self.config, session.dtype, packed=session.packed)

    def need(self, session: Session) -> Need:
        """What was expected that the model of `session` would need in memory."""
        on_device, portable = self.setup.device != "CPU", session.details.get("operators") == "portable"
        return estimate(self.costs(session), session.max_length, session.batch, portable=portable, on_device=on_device)

    def limits_of(self, session: Session) -> Limits | None:
        """The machine's speed in the dtype of `session`; None for a baseline on another device than was measured."""
        return self.limits[session.dtype] if session.device == self.setup.device else None

    def shares_of(self, session: Session, result: Result) -> tuple[Share | None, Share | None]:
        """What decoding and prefill of `result` reached beside the limits, None where that is not known."""
        limits = None if self.config is None else self.limits_of(session)
        if limits is None:
            return None, None
        costs = self.costs(session)
        return decode_share(result, costs, limits), prefill_share(result, costs, limits)

    def baseline_of(self, session: Session) -> Session | None:
        """The baseline on the workloads of `session`."""
        workloads = [result.workload for result in session.results]
        same = (
            baseline for baseline in self.baselines if [result.workload for result in baseline.results] == workloads
        )
        return next(same, None)

    def pairs(self) -> Iterator[tuple[Session, Session]]:
        """Each session that has a baseline, beside it."""
        for session in self.sessions:
            if (baseline := self.baseline_of(session)) is not None:
                yield session, baseline
