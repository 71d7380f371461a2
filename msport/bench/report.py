"""A finished benchmark: everything measured, and what is needed to measure it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msport.architectures import ModelConfig
from msport.bench.figures import ratios, result_document
from msport.bench.limits import Limits
from msport.bench.session import Compilation, Session
from msport.msmodels.costs import Costs

SCHEMA = "msport.bench/1"


@dataclass(frozen=True, slots=True)
class Setup:
    """What was measured, on what machine, and how often.

    `checkpoint` is the SHA-256 over the tensors' hashes in the manifest; `threads` is how many processors every process
    was given, of the kind `processor`; `load_average` is how many others wanted one in the minute before.
    """

    folder: str
    architecture: str
    source: str
    revision: str | None
    checkpoint: str
    processor: str
    threads: int
    load_average: float
    warmup: int
    repeats: int
    seed: int


@dataclass(frozen=True, slots=True)
class Startup:
    """Bringing a model up, in fresh processes.

    `import_seconds` and `load_seconds` hold one value a process, the first of which may have read from disk. `cold` is
    compilation without MindSpore's compiler cache, `warm` with a cache that another process had filled; of `graphs`
    graphs, `cached` came from there, which takes `cache_nbytes` on disk. None: the warm start was not measured.
    """

    import_seconds: tuple[float, ...]
    load_seconds: tuple[float, ...]
    cold: Compilation
    warm: Compilation | None = None
    graphs: int = 0
    cached: int = 0
    cache_nbytes: int = 0

    @property
    def cache_was_used(self) -> bool:
        """Whether every graph of the warm start really came from the cache."""
        return 0 < self.graphs <= self.cached


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The outcome of `benchmark`.

    `sessions` holds one process of msport for each dtype and batch size, `startups` how each came up, and `baselines`
    the peer's process for each, if one was asked for. `notes` say what limits what the figures mean.
    """

    setup: Setup
    config: ModelConfig
    limits: Limits
    startups: tuple[Startup, ...]
    sessions: tuple[Session, ...]
    baselines: tuple[Session, ...] = ()
    notes: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "schema": SCHEMA,
            "setup": asdict(self.setup),
            "limits": self.limits.to_document(),
            "sessions": [
                {**self._session_document(session), "startup": _startup_document(startup)}
                for session, startup in zip(self.sessions, self.startups, strict=True)
            ],
            "baselines": [self._session_document(session) for session in self.baselines],
            "times_as_fast_as_baseline": [
                [dict(ratios(ours, theirs)) for ours, theirs in zip(session.results, baseline.results, strict=True)]
                for session, baseline in zip(self.sessions, self.baselines, strict=False)
            ],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """`to_document` as one JSON text."""
        return json.dumps(self.to_document(), ensure_ascii=False, allow_nan=False)

    def __str__(self) -> str:
        from msport.bench.text import render_text

        return render_text(self)

    def costs(self, session: Session) -> Costs:
        """What the model must move and multiply in the dtype of `session`."""
        return Costs(self.config, session.dtype)

    def _session_document(self, session: Session) -> dict[str, Any]:
        results = [result_document(result, self.costs(session), self.limits) for result in session.results]
        return {**session.to_document(), "results": results}


def _startup_document(startup: Startup) -> Mapping[str, Any]:
    return {**asdict(startup), "cache_was_used": startup.cache_was_used}
