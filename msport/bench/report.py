"""A finished benchmark: what was measured, as text, JSON, CSV and a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from msport.bench.figures import csv_rows
from msport.bench.measure.session import Session
from msport.bench.measurements import Measurements, Startup
from msport.bench.page import render_page
from msport.bench.shares import ratios, result_document
from msport.bench.text import render_text
from msport.report.document import to_json

SCHEMA = "msport.bench/2"


class BenchReport(Measurements):
    """The outcome of `benchmark`; `str` is the text for a terminal."""

    __slots__ = ()

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values; docs/schemas/bench.schema.json describes them."""
        return {
            "schema": SCHEMA,
            "setup": asdict(self.setup),
            "limits": {dtype: limits.to_document() for dtype, limits in self.limits.items()},
            "sessions": [
                {**self._session_document(session), "startup": _startup_document(startup)}
                for session, startup in zip(self.sessions, self.startups, strict=True)
            ],
            "baselines": [self._session_document(session) for session in self.baselines],
            "times_as_fast_as_baseline": [self._ratios(session) for session in self.sessions] * bool(self.baselines),
            "unavailable": [asdict(part) for part in self.unavailable],
            "notes": list(self.notes),
        }

    def to_json(self) -> str:
        """`to_document` as one JSON text."""
        return to_json(self.to_document())

    def to_csv(self) -> str:
        """One line for each workload of each engine, times in seconds, sizes in bytes, rates a second."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(csv_rows(self.to_document()))
        return text.getvalue()

    def to_html(self, published: bool = False) -> str:
        """One self-contained page with charts; with `published`, what others published about the model beside it."""
        return render_page(self, self.to_document(), published)

    def __str__(self) -> str:
        return render_text(self)

    def _ratios(self, session: Session) -> list[dict[str, float]]:
        """For each workload; empty where the peer has not run it."""
        peer = self.baseline_of(session)
        results = () if peer is None else zip(session.results, peer.results, strict=True)
        return [dict(ratios(ours, theirs)) for ours, theirs in results]

    def _session_document(self, session: Session) -> dict[str, Any]:
        costs, limits = self.costs(session), self.limits_of(session)
        results = [result_document(result, costs, limits) for result in session.results]
        return {**session.to_document(), "results": results}


def _startup_document(startup: Startup) -> Mapping[str, Any]:
    return {**asdict(startup), "cache_was_used": startup.cache_was_used}
