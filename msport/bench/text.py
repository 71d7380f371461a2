"""A benchmark as text for a terminal: one workload with a line for each figure, a grid as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msport.bench.figures import KINDS, Figure, milliseconds, result_figures, start_cell
from msport.bench.measure.limits import Limits
from msport.bench.measure.session import Compilation, Result, Session
from msport.bench.measurements import Measurements
from msport.bench.published import describe_published
from msport.bench.shares import Share, ratios
from msport.bench.suites import Unavailable
from msport.bench.tables import limit_table, ratio_table, result_table, startup_table
from msport.report.formatting import counted, in_other_dtypes, number, percent, utc
from msport.report.table import INDENT, Row, Table, columns
from msport.sizing.units import format_size

# The figures with a ratio to the baseline, and the name of the ratio.
_RATIOS = {"prefill_rate": "prefill", "first_token": "first_token", "decode_p50": "decode", "throughput": "throughput"}


def render_text(report: Measurements, published: bool = False) -> str:
    """The whole `report` as text: one workload in about thirty lines, a grid as tables.

    `published` adds figures that others published about models of this architecture.
    """
    return "\n".join(_lines(report, published))


def engine_lines(report: Measurements) -> list[str]:
    """Engine, versions and settings: a line for each engine and dtype."""
    return list(dict.fromkeys(map(_engine_line, (*report.sessions, *report.baselines))))


def _lines(report: Measurements, published: bool) -> Iterator[str]:
    yield from _heading(report)
    single = len(report.sessions) == 1 and len(report.sessions[0].results) == 1
    yield from _single_lines(report, report.sessions[0]) if single else _grid_lines(report)
    if report.unavailable:
        yield ""
        yield "not available"
        yield from (f"  {line}" for line in _unavailable_lines(report.unavailable))
    if report.notes:
        yield ""
        yield from (f"note: {note}" for note in report.notes)
    if published:
        yield ""
        yield from describe_published(report.setup.architecture)


def _heading(report: Measurements) -> Iterator[str]:
    setup = report.setup
    yield f"{setup.folder}: {setup.architecture} from {setup.source}"
    suite = "" if setup.suite is None else f"suite {setup.suite}; "
    runs = f"{setup.warmup} warm-up and {counted(setup.repeats, 'measured run')}"
    spread_over = f" in {setup.processes} processes" if setup.processes > 1 else ""
    yield f"{setup.processor}, {counted(setup.threads, 'thread')}; {suite}{runs}{spread_over}"
    yield f"began {utc(setup.started)}; checkpoint {setup.checkpoint[:16]}, seed {setup.seed}"
    yield ""
    yield from engine_lines(report)
    yield ""


def _engine_line(session: Session) -> str:
    packages: Sequence[str] = ("mindspore",) if session.engine == "msport" else ("torch", "transformers")
    versions = ", ".join(f"{name} {session.versions[name]}" for name in packages)
    details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in session.details.items())
    weights = in_other_dtypes(session.storage, session.dtype)
    return (
        f"{session.engine}: {session.dtype}{weights} on {session.device}, {versions}, {details},"
        f" max length {session.max_length}"
    )


def _grid_lines(report: Measurements) -> Iterator[str]:
    yield from _titled("starting up, and memory", startup_table(report))
    if report.setup.device == "CPU":
        yield "  the CPU has no separate device memory; resident memory holds everything"
    yield ""
    yield from _titled("running (+-: the range of the repeats as a share of the median)", result_table(report.sessions))
    yield ""
    yield from _titled("beside the limits measured in the same run", limit_table(report))
    for dtype, limits in report.limits.items():
        bandwidth, matmul = limits.bandwidth, limits.matmul
        yield f"  {dtype} limits: {number(bandwidth.best / 1e9, 3)} GB/s ({bandwidth.method}),"
        yield f"    {number(matmul.best / 1e9, 3)} GFLOP/s ({matmul.method})"
    if report.baselines:
        yield ""
        yield from _titled("Transformers in float32", result_table(report.baselines))
        yield ""
        yield from _titled("msport is so many times as fast", ratio_table(report))


def _titled(title: str, shown: Table) -> Iterator[str]:
    yield title
    yield from shown.lines(INDENT)


def _single_lines(report: Measurements, session: Session) -> Iterator[str]:
    """The start of the only session, and its only workload with its baseline."""
    (result,), baseline = session.results, report.baseline_of(session)
    yield from columns(_startup_rows(session, baseline))
    yield ""
    yield result.workload.title
    yield from columns(_result_rows(result, None if baseline is None else baseline.results[0]))
    limits = report.limits_of(session)
    if limits is not None:
        yield ""
        yield "beside the limits measured in the same run"
        yield from columns(list(_limit_rows(limits, *report.shares_of(session, result))))


def _startup_rows(session: Session, baseline: Session | None) -> list[Row]:
    startup, figures = session.startup, start_cell(session).figures
    rows: list[Row] = [(name, _seconds(figures[name])) for name in ("import", "load")]
    if startup is not None:
        rows.append(("compile, cold", _compiled(startup.cold)))
        if startup.warm is not None:
            used = "" if startup.cache_was_used else ", CACHE NOT USED"
            rows.append(("compile, warm cache", _compiled(startup.warm) + used))
    rows += [("peak resident memory", _memory(session)), ("peak device memory", _device_memory(session))]
    if baseline is None:
        return rows
    theirs = {
        "import": f"{baseline.import_seconds:.2f} s",
        "load": f"{baseline.load_seconds:.2f} s",
        "peak resident memory": format_size(baseline.memory.peak_resident),
    }
    return [("", "msport", "baseline"), *((name, value, theirs.get(name, "")) for name, value in rows)]


def _result_rows(result: Result, baseline: Result | None) -> list[Row]:
    ours = result_figures(result)
    if baseline is None:
        return [(KINDS[name].title, _value(name, figure)) for name, figure in ours.items()]
    theirs, speedups = result_figures(baseline), ratios(result, baseline)
    rows: list[Row] = [("", "msport", "baseline", "times as fast")]
    for name, figure in ours.items():
        ratio = f"{speedups[_RATIOS[name]]:.2f}" if name in _RATIOS else ""
        rows.append((KINDS[name].title, _value(name, figure), _value(name, theirs[name]), ratio))
    return rows


def _value(name: str, figure: Figure) -> str:
    """A time or a rate of a workload, with its unit and its spread."""
    if KINDS[name].unit == "s":
        text = f"{milliseconds(figure.value)} ms{'/token' * name.startswith('decode')}"
    else:
        text = f"{figure.value:,.1f} {KINDS[name].unit}"
    return text + _spread(figure) if KINDS[name].repeats else text


def _seconds(figure: Figure) -> str:
    return f"{figure.value:.2f} s{_spread(figure)}"


def _spread(figure: Figure) -> str:
    return "" if figure.spread is None else f"  (spread {figure.spread:.0%})"


def _limit_rows(limits: Limits, decode: Share | None, prefill: Share | None) -> Iterator[Row]:
    if decode is not None:
        amount = f"{format_size(round(decode.amount))} a step"
        yield "memory read by decoding", _rate(decode, "GB/s"), amount, limits.bandwidth.method
    if prefill is not None:
        amount = f"{number(prefill.amount / 1e9, 3)} GFLOP a prompt"
        yield "arithmetic of prefill", _rate(prefill, "GFLOP/s"), amount, limits.matmul.method


def _rate(share: Share, unit: str) -> str:
    return f"{number(share.achieved / 1e9, 3)} of {number(share.limit / 1e9, 3)} {unit} ({percent(share.of_limit)})"


def _compiled(times: Compilation) -> str:
    return f"{times.total:.2f} s  (prefill {times.prefill:.2f}, decode {times.decode:.2f})"


def _memory(session: Session) -> str:
    memory = session.memory
    text = format_size(memory.peak_resident)
    if memory.private is None or memory.mapped is None:
        return text
    return f"{text}  (at the end {format_size(memory.private)} private, {format_size(memory.mapped)} file pages)"


def _device_memory(session: Session) -> str:
    """The peak memory of the device, and the value of ``npu-smi``; the CPU has no separate memory."""
    device = session.memory.device
    if device is None:
        return "none: the CPU computes in resident memory"
    held = f"{format_size(device.allocated_peak)}  (reserved {format_size(device.reserved_peak)}"
    if device.used is None or device.total is None:
        return f"{held}; npu-smi does not tell)"
    return f"{held}; npu-smi: {format_size(device.used)} of {format_size(device.total)} in use)"


def _unavailable_lines(parts: Iterable[Unavailable]) -> Iterator[str]:
    """One line for each dtype and reason."""
    batches: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
    for part in parts:
        batches.setdefault((part.dtype, part.prompts, part.reason), []).append(part.batch)
    for (dtype, prompts, reason), several in batches.items():
        yield f"{dtype}, batch {_listed(several)}, prompt {_listed(prompts)}: {reason}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
