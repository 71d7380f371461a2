"""Everything that a benchmark measured, and what is needed to repeat it. This is only data; `report` shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from msport.architectures import ModelConfig
from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Result, Session, Startup
from msport.bench.shares import Share, decode_share, prefill_share
from msport.bench.suites import Unavailable
from msport.sizing.costs import Costs
from msport.sizing.fit import Need, estimate
from msport.sizing.kept import Encodings, kept_encodings


@dataclass(frozen=True, slots=True)
class Setup:
    """What was measured, on which machine, and how often.

    `checkpoint` is the SHA-256 over the tensors' hashes in the manifest. `device_memory` is the size in bytes of a
    device's own memory. `threads` is the number of processors of each process, and `processor` their name.
    `load_average` is that of the minute before. `started` is the time in UTC. `suite` is None for a plain grid.
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

    `limits` holds the machine's own speed for each measured dtype; `sessions` one `Session` of msport for each dtype
    and batch size; `baselines` one of Transformers for each set of workloads, if requested. `unavailable` lists what
    could not be measured. `notes` state the limits of the figures' meaning. `config` is None in a report read from a
    file; bytes, operations and estimates can then not be computed again. `stored` are the encodings of the checkpoint's
    weights.
    """

    setup: Setup
    limits: dict[str, Limits]
    sessions: tuple[Session, ...]
    baselines: tuple[Session, ...] = ()
    unavailable: tuple[Unavailable, ...] = ()
    notes: tuple[str, ...] = ()
    config: ModelConfig | None = None
    stored: Encodings = field(default_factory=dict)

    @property
    def startups(self) -> tuple[Startup, ...]:
        """The startup of each of `sessions`."""
        return tuple(session.startup for session in self.sessions if session.startup is not None)

    def costs(self, session: Session) -> Costs:
        """The bytes and operations of the model in the dtype of `session`. Raises `ValueError` without a config."""
        if self.config is None:
            raise ValueError("a report read from a file does not hold the model's config")
        if session.storage in ((), (session.dtype,)):  # Transformers, or operators that take nothing else
            return Costs(self.config, session.dtype)
        operators = str(session.details.get("operators", "portable"))
        return Costs(self.config, session.dtype, kept_encodings(self.config, self.stored, session.dtype, operators))

    def need(self, session: Session) -> Need:
        """The estimated memory of the model of `session`, in bytes."""
        on_device, portable = self.setup.device != "CPU", session.details.get("operators") == "portable"
        return estimate(self.costs(session), session.max_length, session.batch, portable=portable, on_device=on_device)

    def limits_of(self, session: Session) -> Limits | None:
        """The machine's speed in the dtype of `session`; None for a baseline on another device."""
        return self.limits[session.dtype] if session.device == self.setup.device else None

    def shares_of(self, session: Session, result: Result) -> tuple[Share | None, Share | None]:
        """The shares of the limits that decoding and prefill of `result` reached; None if unknown."""
        limits = None if self.config is None else self.limits_of(session)
        if limits is None:
            return None, None
        costs = self.costs(session)
        return decode_share(result, costs, limits), prefill_share(result, costs, limits)

    def baseline_of(self, session: Session) -> Session | None:
        """The baseline for the workloads of `session`, or None."""
        workloads = [result.workload for result in session.results]
        same = (
            baseline for baseline in self.baselines if [result.workload for result in baseline.results] == workloads
        )
        return next(same, None)

    def pairs(self) -> Iterator[tuple[Session, Session]]:
        """Each session that has a baseline, with its baseline."""
        for session in self.sessions:
            if (baseline := self.baseline_of(session)) is not None:
                yield session, baseline
