"""The figures of a benchmark with their units and the range of their repeats, for text, CSV, charts and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from msport.bench.measure.session import Result, Session
from msport.bench.measure.statistics import Summary, median, spread
from msport.bench.measure.workload import Workload
from msport.bench.measurements import Measurements
from msport.bench.shares import Share
from msport.report.formatting import number, percent
from msport.report.scale import Format
from msport.sizing.units import format_size


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of figure.

    `unit` is s, B, tokens/s, B/s, FLOP, FLOP/s, or "" for a share. For a kind with `repeats`, texts state the spread.
    """

    title: str
    unit: str
    higher_is_better: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, the lowest and the highest of its repeats, and their range as a share of the value (None for one
    repeat).
    """

    value: float
    spread: float | None
    low: float
    high: float

    @classmethod
    def single(cls, value: float) -> Figure:
        """A figure with one value and no repeats."""
        return cls(value, None, value, value)

    @classmethod
    def repeated(cls, values: Sequence[float]) -> Figure:
        """The median of `values`."""
        return cls(median(values), spread(values), min(values), max(values))

    @classmethod
    def time(cls, summary: Summary) -> Figure:
        """The median of `summary`."""
        return cls(summary.p50, summary.spread, summary.lowest, summary.highest)

    @classmethod
    def rate(cls, amount: float, summary: Summary) -> Figure:
        """`amount` divided by the times of `summary`."""
        return cls(amount / summary.p50, summary.spread, amount / summary.highest, amount / summary.lowest)


KINDS = {
    "prefill_rate": Kind("prefill", "tokens/s", higher_is_better=True, repeats=True),
    "first_token": Kind("time to first token", "s", repeats=True),
    "decode_p50": Kind("decode, p50", "s", repeats=True),
    "decode_p95": Kind("decode, p95", "s"),
    "decode_p99": Kind("decode, p99", "s"),
    "decode_rate": Kind("decode rate", "tokens/s", higher_is_better=True),
    "throughput": Kind("throughput, prefill included", "tokens/s", higher_is_better=True, repeats=True),
    "decode_bytes": Kind("bytes a decode step must read", "B"),
    "bandwidth": Kind("memory read by decoding", "B/s", higher_is_better=True),
    "bandwidth_share": Kind("of the memory bandwidth", "", higher_is_better=True),
    "prefill_flops": Kind("operations a prefill needs", "FLOP"),
    "arithmetic": Kind("arithmetic of prefill", "FLOP/s", higher_is_better=True),
    "arithmetic_share": Kind("of the matrix products", "", higher_is_better=True),
    "import": Kind("import", "s", repeats=True),
    "load": Kind("load", "s", repeats=True),
    "compile_cold": Kind("compile, cold", "s"),
    "compile_warm": Kind("compile, warm cache", "s"),
    "loaded_resident": Kind("resident after loading", "B"),
    "peak_resident": Kind("peak resident memory", "B", repeats=True),
    "peak_device": Kind("peak device memory", "B"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """The figures of one workload of one engine by their name in `KINDS`; without a workload, the figures of its start.

    `positions` is the length of the caches, if an engine was started with the same batch for several lengths.
    """

    engine: str
    device: str
    dtype: str
    batch: int
    workload: Workload | None
    figures: Mapping[str, Figure]
    positions: int | None = None

    @property
    def title(self) -> str:
        """A title for tables and charts."""
        length = "" if self.positions is None else f", {self.positions} positions"
        what = f"batch {self.batch}{length}, starting up" if self.workload is None else self.workload.title
        return f"{self.engine} {self.dtype}, {what}"

    @property
    def key(self) -> tuple[object, ...]:
        """The key that is equal in two benchmarks of the same thing."""
        workload = self.workload
        sizes: tuple[object, ...] = (self.positions,)
        if workload is not None:
            sizes = (workload.name, workload.prompt_tokens, workload.new_tokens)
        return (self.engine, self.dtype, self.batch, *sizes)


def make_cells(report: Measurements) -> list[Cell]:
    """All cells of `report`, a session's start before its workloads."""
    cells: dict[object, Cell] = {}
    lengths: dict[object, set[int]] = {}
    starts = [(session, start_cell(session)) for session in (*report.sessions, *report.baselines)]
    for session, start in starts:
        lengths.setdefault(start.key, set()).add(session.max_length)
    for session, start in starts:
        several = len(lengths[start.key]) > 1
        named = replace(start, positions=session.max_length) if several else start
        cells |= {cell.key: cell for cell in (named, *result_cells(report, session))}
    return list(cells.values())


def start_cell(session: Session) -> Cell:
    """The times of starting the engine of `session`, and its memory."""
    startup, device = session.startup, session.memory.device
    figures = {
        "loaded_resident": Figure.single(session.loaded.resident),
        "peak_resident": replace(Figure.repeated(session.peaks), value=float(max(session.peaks))),
    }
    if startup is None:
        figures |= {"import": Figure.single(session.import_seconds), "load": Figure.single(session.load_seconds)}
    else:
        figures |= {
            "import": Figure.repeated(startup.import_seconds),
            "load": Figure.repeated(startup.load_seconds),
            "compile_cold": Figure.single(startup.cold.total),
        }
        if startup.warm is not None:
            figures["compile_warm"] = Figure.single(startup.warm.total)
    if device is not None:
        figures["peak_device"] = Figure.single(device.allocated_peak)
    return _cell(session, None, figures)


def result_cells(report: Measurements, session: Session) -> Iterator[Cell]:
    """One cell for each workload of `session` in `report`."""
    for result in session.results:
        decode_share, prefill_share = report.shares_of(session, result)
        figures = {
            **result_figures(result),
            **_share_figures(("decode_bytes", "bandwidth", "bandwidth_share"), decode_share),
            **_share_figures(("prefill_flops", "arithmetic", "arithmetic_share"), prefill_share),
        }
        yield _cell(session, result.workload, figures)


def result_figures(result: Result) -> dict[str, Figure]:
    """The times and rates of `result`."""
    workload, decode, total = result.workload, result.decode, result.total
    figures = {
        "prefill_rate": Figure.rate(workload.batch * workload.prompt_tokens, result.prefill),
        "first_token": Figure.time(result.first_token),
    }
    if decode is not None:
        figures |= {
            "decode_p50": Figure.time(decode),
            "decode_p95": Figure.single(decode.p95),
            "decode_p99": Figure.single(decode.p99),
            "decode_rate": Figure.rate(workload.batch, decode),
        }
    return {**figures, "throughput": Figure.rate(workload.batch * workload.new_tokens, total)}


def csv_rows(report: Measurements) -> Iterator[Sequence[object]]:
    """A header, then a row for each workload of each engine."""
    columns = [(name, spread) for name, kind in KINDS.items() for spread in (False, True)[: 1 + kind.repeats]]
    head = ("engine", "device", "dtype", "batch", "workload", "prompt_tokens", "new_tokens", "max_length")
    yield (*head, *(f"{name}_spread" if spread else name for name, spread in columns))
    for session in (*report.sessions, *report.baselines):
        start = start_cell(session).figures
        for result, cell in zip(session.results, result_cells(report, session), strict=True):
            workload, figures = result.workload, {**cell.figures, **start}
            keys = (cell.engine, cell.device, cell.dtype, cell.batch, workload.name)
            sizes = (workload.prompt_tokens, workload.new_tokens, session.max_length)
            yield (*keys, *sizes, *(_csv_value(figures.get(name), spread) for name, spread in columns))


def _csv_value(figure: Figure | None, spread: bool) -> object:
    value = None if figure is None else figure.spread if spread else figure.value
    return "" if value is None else value


def _share_figures(names: tuple[str, str, str], share: Share | None) -> dict[str, Figure]:
    if share is None:
        return {}
    values = (share.amount, share.achieved, share.of_limit)
    return {name: Figure.single(value) for name, value in zip(names, values, strict=True)}


def _cell(session: Session, workload: Workload | None, figures: Mapping[str, Figure]) -> Cell:
    return Cell(session.engine, session.device, session.kind, session.batch, workload, figures)


def show_bytes(value: float) -> str:
    return format_size(round(value))


def milliseconds(seconds: float) -> str:
    """`seconds` in milliseconds, without the unit."""
    return number(1e3 * seconds)


def value_text(name: str, value: float) -> str:
    """A value of the figure `name` with its unit."""
    unit = KINDS[name].unit
    if unit == "B":
        return show_bytes(value)
    if unit == "s":
        return f"{value:.2f} s" if value >= 1.0 else f"{milliseconds(value)} ms"
    return f"{number(value)} {unit}" if unit else percent(value)


def axis_of(name: str) -> tuple[str, Format]:
    """The unit of the figure `name` on an axis, and the function that writes a value there."""
    unit = KINDS[name].unit
    if unit == "s":
        return "milliseconds", milliseconds
    return ("bytes", show_bytes) if unit == "B" else (unit, number)
