"""Writes a benchmark as a JSON document, and reads such a document back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msport.bench.figures import make_cells
from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Result, Session
from msport.bench.measure.typed_json import parse
from msport.bench.measurements import Measurements
from msport.bench.shares import Share, ratios
from msport.errors import UsageError

SCHEMA = "msport.bench/2"


def make_document(report: Measurements) -> dict[str, Any]:
    """`report` as JSON values; docs/schemas/bench.schema.json describes them."""
    return {
        "schema": SCHEMA,
        "setup": asdict(report.setup),
        "limits": {dtype: _limits(limits) for dtype, limits in report.limits.items()},
        "sessions": [_session(report, session) for session in report.sessions],
        "baselines": [_session(report, session) for session in report.baselines],
        "times_as_fast_as_baseline": [_ratios(report, session) for session in report.sessions] * bool(report.baselines),
        "unavailable": [asdict(part) for part in report.unavailable],
        "notes": list(report.notes),
    }


def read_report(path: Path) -> Measurements:
    """Reads a report in the form of `make_document` from `path`, without the model's config.

    Raises `UsageError` if it is not a complete report of ``msport bench``.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); give reports of msport bench --json") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        stated = f"'{schema}'" if isinstance(schema, str) else "missing"
        raise UsageError(f"{path}: its schema is {stated}, not '{SCHEMA}'; measure again with msport bench --json")
    try:
        report = parse(Measurements, document)
        make_cells(report)  # checks that every figure can be computed
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise UsageError(f"{path}: not a whole report ({error}); measure again with msport bench --json") from None
    return report


def _limits(limits: Limits) -> dict[str, Any]:
    best = {
        "memory_bytes_per_second": limits.bandwidth.best,
        "matmul_flops_per_second": limits.matmul.best,
    }
    return {**best, **asdict(limits)}


def _session(report: Measurements, session: Session) -> dict[str, Any]:
    document = {**asdict(session), "results": [_result(report, session, result) for result in session.results]}
    if session.startup is None:
        del document["startup"]
    else:
        document["startup"]["cache_was_used"] = session.startup.cache_was_used
    return document


def _result(report: Measurements, session: Session, result: Result) -> dict[str, Any]:
    """The figures of a result, and the samples from which they can be computed again."""
    decode, (decode_share, prefill_share) = result.decode, report.shares_of(session, result)
    return {
        **asdict(result),
        "prefill_tokens_per_second": result.prefill_rate,
        "new_tokens_per_second": result.throughput,
        "prefill_seconds": asdict(result.prefill),
        "first_token_seconds": asdict(result.first_token),
        "decode_seconds": decode and asdict(decode),
        "total_seconds": asdict(result.total),
        "memory_bandwidth": _share(decode_share),
        "arithmetic": _share(prefill_share),
    }


def _share(share: Share | None) -> dict[str, float] | None:
    return None if share is None else {**asdict(share), "of_limit": share.of_limit}


def _ratios(report: Measurements, session: Session) -> list[Mapping[str, float]]:
    """The ratios of each workload; empty if the baseline has not run it."""
    baseline = report.baseline_of(session)
    return [] if baseline is None else [ratios(*pair) for pair in zip(session.results, baseline.results, strict=True)]
