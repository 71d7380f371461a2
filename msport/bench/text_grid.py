"""A grid as text: how each session came up, its workloads, their share of the limits, and the peer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msport.bench.measure.session import Result, Session
from msport.bench.measure.statistics import Summary, median
from msport.bench.measurements import Measurements, Startup
from msport.bench.shares import decode_share, prefill_share, ratios
from msport.report.layout import Row, number, percent, table
from msport.sizing.units import format_size

_KEYS = ("dtype", "batch", "prompt", "new")


def grid_lines(report: Measurements) -> Iterator[str]:
    """The tables of `report`."""
    yield from _titled("starting up, and memory", startup_rows(report))
    if report.setup.device == "CPU":
        yield "  the device is the CPU: it has no memory of its own, resident memory holds everything"
    yield ""
    yield from _titled("running (+-: the range of the repeats as a share of the median)", result_rows(report.sessions))
    yield ""
    yield from _titled("beside the limits measured in the same run", limit_rows(report))
    for dtype, limits in report.limits.items():
        bandwidth, matmul = limits.bandwidth, limits.matmul
        yield f"  {dtype} limits: {number(bandwidth.best / 1e9, 3)} GB/s ({bandwidth.method}),"
        yield f"    {number(matmul.best / 1e9, 3)} GFLOP/s ({matmul.method})"
    if report.baselines:
        yield ""
        yield from _titled("Transformers in float32", result_rows(report.baselines))
        yield ""
        yield from _titled("msport is so many times as fast", ratio_rows(report))


def startup_rows(report: Measurements) -> list[Row]:
    """One row for each session of msport, head first; columns of what was not measured are left out."""
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
    """One row for each workload, head first."""
    prefill, decode = ("prefill\ntokens/s", "+-", "first\ntoken ms", "+-"), ("decode\nms p50", "+-", "p95", "p99")
    rows: list[Row] = [(*_KEYS, *prefill, *decode, "tokens/s", "+-")]
    for session, result in _results(sessions):
        steps = result.decode
        timed = ("", "", "", "") if steps is None else (*_timed(steps), _ms(steps.p95), _ms(steps.p99))
        rate = (f"{result.prefill_rate:,.1f}", _spread(result.prefill))
        throughput = (f"{result.throughput:,.1f}", _spread(result.total))
        rows.append((*_keys(session, result), *rate, *_timed(result.first_token), *timed, *throughput))
    return rows


def limit_rows(report: Measurements) -> list[Row]:
    """Bytes and operations that were needed, what was reached a second, and its share of the limit; head first."""
    rows: list[Row] = [(*_KEYS, "GB\na step", "GB/s", "of\nlimit", "GFLOP\na prefill", "GFLOP/s", "of\nlimit")]
    for session, result in _results(report.sessions):
        costs, limits = report.costs(session), report.limits_of(session)
        if limits is None:
            continue
        shares = (decode_share(result, costs, limits), prefill_share(result, costs, limits))
        columns = [
            ("", "", "")
            if share is None
            else (number(share.amount / 1e9, 3), number(share.achieved / 1e9, 3), percent(share.of_limit))
            for share in shares
        ]
        rows.append((*_keys(session, result), *columns[0], *columns[1]))
    return rows


def ratio_rows(report: Measurements) -> list[Row]:
    """How many times as fast as its peer each workload is, head first."""
    names = ("prefill", "first_token", "decode", "throughput")
    rows: list[Row] = [(*_KEYS, *(name.replace("_", " ") for name in names))]
    for session, peer in report.pairs():
        for result, theirs in zip(session.results, peer.results, strict=True):
            found = ratios(result, theirs)
            columns = (f"{found[name]:.2f}" if name in found else "" for name in names)
            rows.append((*_keys(session, result), *columns))
    return rows


def _results(sessions: Iterable[Session]) -> Iterator[tuple[Session, Result]]:
    return ((session, result) for session in sessions for result in session.results)


def _keys(session: Session, result: Result) -> Row:
    workload = result.workload
    prompt = f"{workload.name} {workload.prompt_tokens}" if workload.name else str(workload.prompt_tokens)
    return (session.kind, str(session.batch), prompt, str(workload.new_tokens))


def _titled(title: str, rows: Sequence[Row]) -> Iterator[str]:
    yield title
    yield from table(rows, "<" + ">" * (len(rows[0]) - 1))


def _warm(startup: Startup) -> str:
    if startup.warm is None:
        return ""
    return f"{startup.warm.total:.2f} s" if startup.cache_was_used else "CACHE NOT USED"


def _timed(summary: Summary) -> Row:
    return (_ms(summary.p50), _spread(summary))


def _ms(seconds: float) -> str:
    return number(seconds * 1e3)


def _spread(summary: Summary) -> str:
    return "" if summary.spread is None else f"{summary.spread:.0%}"
