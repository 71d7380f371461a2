"""The rows of a benchmark's tables, head first, the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msport.bench.measure.session import Result, Session, Startup
from msport.bench.measure.statistics import Summary, median
from msport.bench.measurements import Measurements
from msport.bench.shares import Share, ratios
from msport.report.layout import Row, number, percent
from msport.sizing.units import format_size

_KEYS = ("dtype", "batch", "prompt", "new")


def startup_rows(report: Measurements) -> list[Row]:
    """One row for each session of msport; columns of what was not measured are left out."""
    device = any(session.memory.device for session in report.sessions)
    warm = any(startup.warm for startup in report.startups)
    head = ("dtype", "batch", "positions", "load", "compile", *("warm cache",) * warm, "loaded", "peak", "expected")
    rows: list[Row] = [(*head, *("device peak",) * device)]
    for session, startup in zip(report.sessions, report.startups, strict=True):
        peak = session.memory.device
        rows.append(
            (
                session.kind,
                str(session.batch),
                str(session.max_length),
                f"{median(startup.load_seconds):.2f} s",
                f"{startup.cold.total:.2f} s",
                *(_warm(startup),) * warm,
                format_size(session.loaded.resident),
                format_size(session.memory.peak_resident),
                format_size(report.need(session).total),
                *("" if peak is None else format_size(peak.allocated_peak),) * device,
            )
        )
    return rows


def result_rows(sessions: Iterable[Session]) -> list[Row]:
    """One row for each workload."""
    prefill, decode = ("prefill\ntokens/s", "+-", "first\ntoken ms", "+-"), ("decode\nms p50", "+-", "p95", "p99")
    rows: list[Row] = [(*_KEYS, *prefill, *decode, "tokens/s", "+-")]
    for session, result in _results(sessions):
        steps = result.decode
        timed = (
            ("", "", "", "") if steps is None else (*_timed(steps), milliseconds(steps.p95), milliseconds(steps.p99))
        )
        rate = (f"{result.prefill_rate:,.1f}", _spread(result.prefill))
        throughput = (f"{result.throughput:,.1f}", _spread(result.total))
        rows.append((*_keys(session, result), *rate, *_timed(result.first_token), *timed, *throughput))
    return rows


def limit_rows(report: Measurements) -> list[Row]:
    """Bytes and operations that were needed, what was reached a second, and its share of the limit."""
    rows: list[Row] = [(*_KEYS, "GB\na step", "GB/s", "of\nlimit", "GFLOP\na prefill", "GFLOP/s", "of\nlimit")]
    for session, result in _results(report.sessions):
        decode, prefill = report.shares_of(session, result)
        if prefill is not None:
            rows.append((*_keys(session, result), *_share(decode), *_share(prefill)))
    return rows


def ratio_rows(report: Measurements) -> list[Row]:
    """How many times as fast as its peer each workload is."""
    names = ("prefill", "first_token", "decode", "throughput")
    rows: list[Row] = [(*_KEYS, *(name.replace("_", " ") for name in names))]
    for session, peer in report.pairs():
        for result, theirs in zip(session.results, peer.results, strict=True):
            found = ratios(result, theirs)
            columns = (f"{found[name]:.2f}" if name in found else "" for name in names)
            rows.append((*_keys(session, result), *columns))
    return rows


def milliseconds(seconds: float) -> str:
    """`seconds` in milliseconds, without the unit."""
    return number(seconds * 1e3)


def _results(sessions: Iterable[Session]) -> Iterator[tuple[Session, Result]]:
    return ((session, result) for session in sessions for result in session.results)


def _keys(session: Session, result: Result) -> Row:
    workload = result.workload
    prompt = f"{workload.name} {workload.prompt_tokens}" if workload.name else str(workload.prompt_tokens)
    return (session.kind, str(session.batch), prompt, str(workload.new_tokens))


def _warm(startup: Startup) -> str:
    if startup.warm is None:
        return ""
    return f"{startup.warm.total:.2f} s" if startup.cache_was_used else "CACHE NOT USED"


def _share(share: Share | None) -> Row:
    if share is None:
        return ("", "", "")
    return (number(share.amount / 1e9, 3), number(share.achieved / 1e9, 3), percent(share.of_limit))


def _timed(summary: Summary) -> Row:
    return (milliseconds(summary.p50), _spread(summary))


def _spread(summary: Summary) -> str:
    return "" if summary.spread is None else f"{summary.spread:.0%}"
