"""The figures of a benchmark's document in one shape, for the table, the CSV, the charts and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msport.bench.measure.statistics import median, spread
from msport.bench.measure.workload import Workload
from msport.sizing.process import Memory


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of figure: its unit (s, B, tokens/s, B/s, FLOP, FLOP/s, or "" for a share), and which way is better."""

    title: str
    unit: str
    higher_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A value between the `low` and the `high` one of its repeats; their range as a share, None for one repeat."""

    value: float
    spread: float | None
    low: float
    high: float

    @classmethod
    def single(cls, value: float) -> Figure:
        return cls(value, None, value, value)

    @classmethod
    def repeated(cls, values: Sequence[float]) -> Figure:
        """The median of `values`."""
        return cls(median(values), spread(values), min(values), max(values))

    @classmethod
    def time(cls, summary: Mapping[str, Any]) -> Figure:
        """The median of a `Summary`."""
        return cls(summary["p50"], summary["spread"], summary["lowest"], summary["highest"])

    @classmethod
    def rate(cls, amount: float, summary: Mapping[str, Any]) -> Figure:
        """`amount` over the times of a `Summary`."""
        return cls(amount / summary["p50"], summary["spread"], amount / summary["highest"], amount / summary["lowest"])


KINDS = {
    "prefill_rate": Kind("prefill", "tokens/s", higher_is_better=True),
    "first_token": Kind("time to first token", "s"),
    "decode_p50": Kind("decode, p50", "s"),
    "decode_p95": Kind("decode, p95", "s"),
    "decode_p99": Kind("decode, p99", "s"),
    "decode_rate": Kind("decode rate", "tokens/s", higher_is_better=True),
    "throughput": Kind("throughput, prefill included", "tokens/s", higher_is_better=True),
    "decode_bytes": Kind("bytes a decode step must read", "B"),
    "bandwidth": Kind("memory read by decoding", "B/s", higher_is_better=True),
    "bandwidth_share": Kind("of the memory bandwidth", "", higher_is_better=True),
    "prefill_flops": Kind("operations a prefill needs", "FLOP"),
    "arithmetic": Kind("arithmetic of prefill", "FLOP/s", higher_is_better=True),
    "arithmetic_share": Kind("of the matrix products", "", higher_is_better=True),
    "import": Kind("import", "s"),
    "load": Kind("load", "s"),
    "compile_cold": Kind("compile, cold", "s"),
    "compile_warm": Kind("compile, warm cache", "s"),
    "loaded_resident": Kind("resident after loading", "B"),
    "peak_resident": Kind("peak resident memory", "B"),
    "peak_device": Kind("peak device memory", "B"),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """The figures of one workload of one engine, by their name in `KINDS`; without a workload those of its start.

    `positions` are those of the caches, where an engine was started with the same batch for several lengths.
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
        length = "" if self.positions is None else f", {self.positions} positions"
        what = f"batch {self.batch}{length}, starting up" if self.workload is None else self.workload.title
        return f"{self.engine} {self.dtype}, {what}"

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same in two benchmarks of the same thing."""
        workload = self.workload
        sizes: tuple[object, ...] = (self.positions,)
        if workload is not None:
            sizes = (workload.name, workload.prompt_tokens, workload.new_tokens)
        return (self.engine, self.dtype, self.batch, *sizes)


def start_cell(session: Mapping[str, Any]) -> Cell:
    """What it took to bring a session's engine up, and the memory that it held."""
    startup, device = session.get("startup"), session["memory"]["device"]
    figures = {
        "loaded_resident": Figure.single(Memory.from_document(session["loaded"]).resident),
        "peak_resident": replace(Figure.repeated(session["peaks"]), value=float(max(session["peaks"]))),
    }
    if startup is None:
        figures |= {"import": Figure.single(session["import_seconds"]), "load": Figure.single(session["load_seconds"])}
    else:
        figures |= {name: Figure.repeated(startup[f"{name}_seconds"]) for name in ("import", "load")}
        figures |= {
            f"compile_{kind}": Figure.single(startup[kind]["prefill"] + (startup[kind]["decode"] or 0.0))
            for kind in ("cold", "warm")
            if startup[kind] is not None
        }
    if device is not None:
        figures["peak_device"] = Figure.single(device["allocated_peak"])
    return _cell(session, None, figures)


def result_cells(session: Mapping[str, Any]) -> Iterator[Cell]:
    """One cell for each workload of a session's document."""
    for result in session["results"]:
        yield _cell(session, Workload.from_document(result["workload"]), dict(_result_figures(result)))


def document_cells(document: Mapping[str, Any]) -> list[Cell]:
    """All cells of a benchmark's document, a session's start before its workloads."""
    cells: dict[object, Cell] = {}
    sessions = (*document["sessions"], *document["baselines"])
    starts = [start_cell(session) for session in sessions]
    lengths: dict[object, set[int]] = {}
    for session, start in zip(sessions, starts, strict=True):
        lengths.setdefault(start.key, set()).add(session["max_length"])
    for session, start in zip(sessions, starts, strict=True):
        several = len(lengths[start.key]) > 1
        named = replace(start, positions=session["max_length"]) if several else start
        cells |= {cell.key: cell for cell in (named, *result_cells(session))}
    return list(cells.values())


def csv_rows(document: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    """A head, then a row for each workload of each engine."""
    head = ("engine", "device", "dtype", "batch", "workload", "prompt_tokens", "new_tokens", "max_length")
    columns = [column for name in KINDS for column in (name, f"{name}_spread")]
    spreads = {f"{name}_spread" for name in _WITH_SPREAD}
    columns = [column for column in columns if column in KINDS or column in spreads]
    yield (*head, *columns)
    for session in (*document["sessions"], *document["baselines"]):
        start = start_cell(session)
        for cell in result_cells(session):
            figures = {**cell.figures, **start.figures}
            values = {name: figure.value for name, figure in figures.items()}
            values |= {f"{name}_spread": figure.spread for name, figure in figures.items() if figure.spread is not None}
            workload = cell.workload or Workload()
            keys = (cell.engine, cell.device, cell.dtype, cell.batch, workload.name)
            sizes = (workload.prompt_tokens, workload.new_tokens, session["max_length"])
            yield (*keys, *sizes, *(values.get(column, "") for column in columns))


_WITH_SPREAD = ("prefill_rate", "first_token", "decode_p50", "throughput", "import", "load", "peak_resident")


def _result_figures(result: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    workload, decode = Workload.from_document(result["workload"]), result["decode_seconds"]
    yield "prefill_rate", Figure.rate(workload.batch * workload.prompt_tokens, result["prefill_seconds"])
    yield "first_token", Figure.time(result["first_token_seconds"])
    if decode is not None:
        yield "decode_p50", Figure.time(decode)
        yield "decode_p95", Figure.single(decode["p95"])
        yield "decode_p99", Figure.single(decode["p99"])
        yield "decode_rate", Figure.rate(workload.batch, decode)
    yield "throughput", Figure.rate(workload.batch * workload.new_tokens, result["total_seconds"])
    shares = {
        "memory_bandwidth": ("decode_bytes", "bandwidth", "bandwidth_share"),
        "arithmetic": ("prefill_flops", "arithmetic", "arithmetic_share"),
    }
    for field, names in shares.items():
        if result[field] is not None:
            for name, value in zip(names, ("amount", "achieved", "of_limit"), strict=True):
                yield name, Figure.single(result[field][value])


def _cell(session: Mapping[str, Any], workload: Workload | None, figures: Mapping[str, Figure]) -> Cell:
    batch = session["results"][0]["workload"]["batch"]
    kind = "mxfp4" if session["packed"] else session["dtype"]
    return Cell(session["engine"], session["device"], kind, batch, workload, figures)
