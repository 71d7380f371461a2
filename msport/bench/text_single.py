"""One workload as text, a line a figure, beside its baseline."""

from __future__ import annotations

from collections.abc import Iterator

from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Result, Session
from msport.bench.measure.statistics import Summary, summarise
from msport.bench.measurements import Startup
from msport.bench.shares import Share, decode_share, prefill_share, ratios
from msport.report.layout import Row, number, percent, table
from msport.sizing.costs import Costs
from msport.sizing.units import format_size


def session_lines(
    session: Session, startup: Startup, baseline: Session | None, costs: Costs, limits: Limits | None
) -> Iterator[str]:
    """How a session came up, and its one workload."""
    result, peer = session.results[0], None if baseline is None else baseline.results[0]
    yield from table(_startup_rows(session, startup, baseline))
    yield ""
    yield result.workload.title
    yield from table(_result_rows(result, peer))
    if limits is not None:
        yield ""
        yield "beside the limits measured in the same run"
        yield from table(list(_limit_rows(result, costs, limits)))


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
    rows.append(("peak device memory", device_memory(session)))
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
        ("prefill", f"{result.prefill_rate:,.1f} tokens/s{_spread(result.prefill)}", "prefill"),
        ("time to first token", f"{_milliseconds(result.first_token.p50)}{_spread(result.first_token)}", "first_token"),
    ]
    if decode is not None:
        rows += [
            ("decode, p50", f"{_milliseconds(decode.p50)}/token{_spread(decode)}", "decode"),
            ("decode, p95", f"{_milliseconds(decode.p95)}/token", ""),
            ("decode, p99", f"{_milliseconds(decode.p99)}/token", ""),
            ("decode rate", f"{workload.batch / decode.p50:,.1f} tokens/s", ""),
        ]
    return [
        *rows,
        ("throughput, prefill included", f"{result.throughput:,.1f} tokens/s{_spread(result.total)}", "throughput"),
    ]


def _limit_rows(result: Result, costs: Costs, limits: Limits) -> Iterator[Row]:
    decode = decode_share(result, costs, limits)
    if decode is not None:
        amount = f"{format_size(round(decode.amount))} a step"
        yield "memory read by decoding", _rate(decode, "GB/s"), amount, limits.bandwidth.method
    prefill = prefill_share(result, costs, limits)
    amount = f"{number(prefill.amount / 1e9, 3)} GFLOP a prompt"
    yield "arithmetic of prefill", _rate(prefill, "GFLOP/s"), amount, limits.matmul.method


def _rate(share: Share, unit: str) -> str:
    return f"{number(share.achieved / 1e9, 3)} of {number(share.limit / 1e9, 3)} {unit} ({percent(share.of_limit)})"


def _compiled(prefill: float, decode: float) -> str:
    return f"{prefill + decode:.2f} s  (prefill {prefill:.2f}, decode {decode:.2f})"


def _memory(session: Session) -> str:
    memory = session.memory
    text = format_size(memory.peak_resident)
    if memory.private is None or memory.mapped is None:
        return text
    return f"{text}  (at the end {format_size(memory.private)} private, {format_size(memory.mapped)} file pages)"


def device_memory(session: Session) -> str:
    """The most that the device gave out, and what ``npu-smi`` says; the CPU has no memory of its own."""
    device = session.memory.device
    if device is None:
        return "none of its own: the CPU computes in resident memory"
    held = f"{format_size(device.allocated_peak)}  (reserved {format_size(device.reserved_peak)}"
    if device.used is None or device.total is None:
        return f"{held}; npu-smi does not tell)"
    return f"{held}; npu-smi: {format_size(device.used)} of {format_size(device.total)} in use)"


def _seconds(summary: Summary | None) -> str:
    return "" if summary is None else f"{summary.p50:.2f} s{_spread(summary)}"


def _milliseconds(seconds: float) -> str:
    return f"{number(seconds * 1e3)} ms"


def _spread(summary: Summary) -> str:
    return "" if summary.spread is None else f"  (spread {summary.spread:.0%})"
