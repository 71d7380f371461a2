"""The tables of a benchmark, the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msport.bench.figures import Figure, milliseconds, result_figures
from msport.bench.measure.session import Result, Session, Startup
from msport.bench.measure.statistics import median
from msport.bench.measurements import Measurements
from msport.bench.shares import Share, ratios
from msport.report.formatting import number, percent
from msport.report.table import Row, Table
from msport.sizing.units import format_size

_KEYS = ("dtype", "batch", "prompt", "new")


def startup_table(report: Measurements) -> Table:
    """One row for each session of msport, without columns that were not measured."""
    head = ("dtype", "batch", "positions", "load", "compile", "warm cache", "loaded", "peak", "expected", "device peak")
    rows = []
    for session, startup in zip(report.sessions, report.startups, strict=True):
        device = session.memory.device
        rows.append(
            (
                session.kind,
                str(session.batch),
                str(session.max_length),
                f"{median(startup.load_seconds):.2f} s",
                f"{startup.cold.total:.2f} s",
                _warm(startup),
                format_size(session.loaded.resident),
                format_size(session.memory.peak_resident),
                format_size(report.need(session).total),
                "" if device is None else format_size(device.allocated_peak),
            )
        )
    return Table(head, rows).without_empty()


def result_table(sessions: Iterable[Session]) -> Table:
    """One row for each workload."""
    prefill, decode = ("prefill\ntokens/s", "+-", "first\ntoken ms", "+-"), ("decode\nms p50", "+-", "p95", "p99")
    rows = []
    for session, result in _results(sessions):
        figures = result_figures(result)
        rates = [(f"{figures[name].value:,.1f}", _spread(figures[name])) for name in ("prefill_rate", "throughput")]
        times = (*_time(figures["first_token"]), *_decode_times(figures))
        rows.append((*_keys(session, result), *rates[0], *times, *rates[1]))
    return Table((*_KEYS, *prefill, *decode, "tokens/s", "+-"), rows)


def limit_table(report: Measurements) -> Table:
    """The needed bytes and operations, the achieved rate per second, and its share of the limit."""
    rows = []
    for session, result in _results(report.sessions):
        decode, prefill = report.shares_of(session, result)
        if prefill is not None:
            rows.append((*_keys(session, result), *_share(decode), *_share(prefill)))
    head = ("GB\na step", "GB/s", "of\nlimit", "GFLOP\na prefill", "GFLOP/s", "of\nlimit")
    return Table((*_KEYS, *head), rows)


def ratio_table(report: Measurements) -> Table:
    """The speed of each workload relative to its baseline."""
    names = ("prefill", "first_token", "decode", "throughput")
    rows = []
    for session, baseline in report.pairs():
        for result, theirs in zip(session.results, baseline.results, strict=True):
            found = ratios(result, theirs)
            columns = (f"{found[name]:.2f}" if name in found else "" for name in names)
            rows.append((*_keys(session, result), *columns))
    return Table((*_KEYS, *(name.replace("_", " ") for name in names)), rows)


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


def _decode_times(figures: Mapping[str, Figure]) -> Row:
    if "decode_p50" not in figures:
        return ("", "", "", "")
    tails = (milliseconds(figures[name].value) for name in ("decode_p95", "decode_p99"))
    return (*_time(figures["decode_p50"]), *tails)


def _time(figure: Figure) -> Row:
    return (milliseconds(figure.value), _spread(figure))


def _spread(figure: Figure) -> str:
    return "" if figure.spread is None else f"{figure.spread:.0%}"
