"""A report as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msport.bench.figures import Share, decode_share, prefill_share, ratios
from msport.bench.report import BenchReport, Startup
from msport.bench.session import Result, Session
from msport.bench.statistics import Summary, summarise
from msport.convert import format_size

Row = tuple[str, ...]


def render_text(report: BenchReport) -> str:
    """Everything that `report` says, in about thirty lines."""
    return "\n".join(_lines(report))


def _lines(report: BenchReport) -> Iterator[str]:
    setup = report.setup
    yield f"{setup.folder}: {setup.architecture} from {setup.source}"
    runs = f"{setup.warmup} warm-up and {setup.repeats} measured runs"
    yield f"{setup.processor}, {_counted(setup.threads, 'thread')}; {runs}"
    for number, (session, startup) in enumerate(zip(report.sessions, report.startups, strict=True)):
        baseline = report.baselines[number] if report.baselines else None
        yield ""
        yield _engine_line(session)
        if baseline is not None:
            yield _engine_line(baseline)
        yield ""
        yield from _table(_startup_rows(session, startup, baseline))
        for index, result in enumerate(session.results):
            peer = None if baseline is None else baseline.results[index]
            yield ""
            yield f"{result.workload.title}"
            yield from _table(_result_rows(result, peer))
            yield from _limit_lines(report, session, result)
    if report.notes:
        yield ""
        yield from (f"note: {note}" for note in report.notes)


def _engine_line(session: Session) -> str:
    packages = ("mindspore",) if session.engine == "msport" else ("torch", "transformers")
    versions = ", ".join(f"{name} {session.versions[name]}" for name in packages)
    details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in session.details.items())
    return (
        f"{session.engine}: {session.dtype} on {session.device}, {versions}, {details}, max length {session.max_length}"
    )


def _startup_rows(session: Session, startup: Startup, baseline: Session | None) -> list[Row]:
    rows: list[Row] = [
        ("import", _seconds(summarise([[each] for each in startup.import_seconds]))),
        ("load", _seconds(summarise([[each] for each in startup.load_seconds]))),
        ("compile, cold", _compiled(startup.cold.prefill, startup.cold.decode)),
    ]
    if startup.warm is not None:
        used = "" if startup.cache_was_used else ", CACHE NOT USED"
        rows.append(("compile, warm cache", _compiled(startup.warm.prefill, startup.warm.decode) + used))
    rows.append(("peak resident memory", _memory(session)))
    if session.memory.device_peak is not None:
        rows.append(("peak device memory", format_size(session.memory.device_peak)))
    if baseline is None:
        return rows
    theirs = {
        "import": f"{baseline.import_seconds:.2f} s",
        "load": f"{baseline.load_seconds:.2f} s",
        "peak resident memory": format_size(baseline.memory.peak_resident),
    }
    return [("", "msport", "baseline"), *((name, value, theirs.get(name, "")) for name, value in rows)]


def _result_rows(result: Result, peer: Result | None) -> list[Row]:
    rows = _figures(result)
    if peer is None:
        return [(name, value) for name, value, _ in rows]
    speedups = ratios(result, peer)
    theirs = {name: value for name, value, _ in _figures(peer)}
    table: list[Row] = [("", "msport", "baseline", "times as fast")]
    for name, value, ratio in rows:
        table.append((name, value, theirs[name], f"{speedups[ratio]:.2f}" if ratio in speedups else ""))
    return table


def _figures(result: Result) -> list[tuple[str, str, str]]:
    """Name, value, and the key of the ratio that belongs to it."""
    workload, decode = result.workload, result.decode
    rows = [
        ("prefill", f"{result.prefill_rate:.1f} tokens/s{_spread(result.prefill)}", "prefill"),
        ("time to first token", f"{_milliseconds(result.first_token.p50)}{_spread(result.first_token)}", "first_token"),
    ]
    if decode is not None:
        rows += [
            ("decode, p50", f"{_milliseconds(decode.p50)}/token{_spread(decode)}", "decode"),
            ("decode, p95", f"{_milliseconds(decode.p95)}/token", ""),
            ("decode, p99", f"{_milliseconds(decode.p99)}/token", ""),
            ("decode rate", f"{workload.batch / decode.p50:.1f} tokens/s", ""),
        ]
    return [
        *rows,
        ("throughput, prefill included", f"{result.throughput:.1f} tokens/s{_spread(result.total)}", "throughput"),
    ]


def _limit_lines(report: BenchReport, session: Session, result: Result) -> Iterator[str]:
    costs, limits = report.costs(session), report.limits
    rows = []
    decode = decode_share(result, costs, limits)
    if decode is not None:
        amount = f"{format_size(round(decode.amount))} a step"
        rows.append(("memory read by decoding", _rate(decode, "GB/s"), amount, limits.bandwidth.method))
    prefill = prefill_share(result, costs, limits)
    amount = f"{prefill.amount / 1e9:.3g} GFLOP a prompt"
    rows.append(("arithmetic of prefill", _rate(prefill, "GFLOP/s"), amount, limits.matmul.method))
    yield ""
    yield "beside the limits measured in the same run"
    yield from _table(rows)


def _rate(share: Share, unit: str) -> str:
    return f"{share.achieved / 1e9:.3g} of {share.limit / 1e9:.3g} {unit} ({share.of_limit:.0%})"


def _compiled(prefill: float, decode: float | None) -> str:
    if decode is None:
        return f"{prefill:.2f} s"
    return f"{prefill + decode:.2f} s  (prefill {prefill:.2f}, decode {decode:.2f})"


def _memory(session: Session) -> str:
    memory = session.memory
    text = format_size(memory.peak_resident)
    if memory.private is None or memory.mapped is None:
        return text
    return f"{text}  (at the end {format_size(memory.private)} private, {format_size(memory.mapped)} file pages)"


def _seconds(summary: Summary | None) -> str:
    return "" if summary is None else f"{summary.p50:.2f} s{_spread(summary)}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.4g} ms"


def _spread(summary: Summary) -> str:
    return "" if summary.spread is None else f"  (spread {summary.spread:.0%})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield ("  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))).rstrip()
