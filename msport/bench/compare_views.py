"""A comparison as text for a terminal, and as a page with charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from msport.bench import chart
from msport.bench.cells import KINDS, Cell
from msport.bench.compare import COMPARED, Change, Comparison
from msport.bench.page import paragraph, render, section, table
from msport.convert import format_size
from msport.report.layout import Row, utc
from msport.report.layout import table as text_table

_WORDS = {"better": "better", "worse": "WORSE", "noise": "noise", "unknown": "no spread"}
_CLASSES = {"better": "good", "worse": "bad"}
_PER_CHART = 6


def render_comparison(comparison: Comparison) -> str:
    """A table for each run beside the first, and what is noise."""
    return "\n".join(_lines(comparison))


def render_comparison_page(comparison: Comparison) -> str:
    """The same with charts: each figure of all runs, and each change beside its noise."""
    beside = list(zip(comparison.files[1:], comparison.changes, comparison.notes, strict=True))
    first = comparison.files[0]
    body = [_files(comparison)]
    for file, changes, notes in beside:
        said = [paragraph(_summary(changes)), *(paragraph(note) for note in notes)]
        body.append(section(f"{first} and {file}", "\n".join(said)))
    body += list(_figures(comparison))
    for file, changes, _ in beside:
        rows = table(_rows(changes), "<<>>>><", [_CLASSES.get(each.verdict, "") for each in changes])
        body.append(section(f"All figures of {first} and {file}", rows))
    return render("comparison of runs", "the first run beside each of the others", body)


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"first: {comparison.files[0]} ({utc(comparison.started[0])})"
    for index, changes in enumerate(comparison.changes):
        yield ""
        yield f"beside: {comparison.files[index + 1]} ({utc(comparison.started[index + 1])})"
        yield ""
        if changes:
            yield from text_table(_rows(changes), "<<>>>><")
            yield ""
        yield _summary(changes)
        yield from (f"note: {note}" for note in comparison.notes[index])


def _rows(changes: Sequence[Change]) -> list[Row]:
    rows: list[Row] = [("", "figure", "first", "then", "change", "noise", "verdict")]
    last = ""
    for each in changes:
        rows.append(
            (
                "" if each.cell == last else each.cell.removeprefix("msport "),
                KINDS[each.figure].title.removesuffix(", prefill included"),
                _value(each.figure, each.before),
                _value(each.figure, each.after),
                f"{each.after / each.before - 1:+.1%}",
                "" if each.noise is None else f"{100 / (1 + each.noise) - 100:.1f} to {100 * each.noise:+.1f}%",
                _WORDS[each.verdict],
            )
        )
        last = each.cell
    return rows


def _summary(changes: Sequence[Change]) -> str:
    counts = Counter(each.verdict for each in changes)
    judged = len(changes) - counts["unknown"]
    if not judged:
        return "nothing in these runs has a spread to judge by: repeat with --repeats 2 or more"
    agree = f"{counts['noise']} of {judged} figures agree within the runs' own stated spread"
    moved = f"{counts['better']} better, {counts['worse']} worse beyond it"
    without = f"; {counts['unknown']} have no spread" if counts["unknown"] else ""
    return f"{agree}; {moved}{without}"


def _figures(comparison: Comparison) -> Iterator[str]:
    """For each figure a chart with a bar for each run, in groups of workloads that fit a page."""
    for name in COMPARED:
        cells = [cell for cell in comparison.cells[0] if name in cell.figures]
        charts = []
        for begin in range(0, len(cells), _PER_CHART):
            some = cells[begin : begin + _PER_CHART]
            series = [
                chart.Series(file, [_point(others, cell, name) for cell in some])
                for file, others in zip(comparison.files, comparison.cells, strict=True)
            ]
            unit, show = _axis(name)
            charts.append(chart.bar_chart([_label(cell) for cell in some], series, unit, show))
        charts += list(_changes(comparison, name))
        if charts:
            yield section(KINDS[name].title[:1].upper() + KINDS[name].title[1:], "\n".join(charts))


def _changes(comparison: Comparison, name: str) -> Iterator[str]:
    """For each run beside the first a chart of how the figure changed."""
    labels = {cell.title: _label(cell).replace("\n", ", ") for cell in comparison.cells[0]}
    for file, changes in zip(comparison.files[1:], comparison.changes, strict=True):
        judged = [
            chart.Change(labels[each.cell], each.change, each.noise)
            for each in changes
            if each.figure == name and each.noise is not None
        ]
        if judged:
            yield paragraph(f"{file}: to the right is better; a dot inside its grey band is noise.")
            yield chart.change_chart(judged)


def _point(cells: Sequence[Cell], wanted: Cell, name: str) -> chart.Point | None:
    figure = next((cell.figures[name] for cell in cells if cell.key == wanted.key and name in cell.figures), None)
    return None if figure is None else chart.Point(figure.value, figure.low, figure.high)


def _label(cell: Cell) -> str:
    """Three short lines: what computed, how many sequences, and which prompt."""
    engine = "" if cell.engine == "msport" else f"{cell.engine} "
    if cell.workload is None:
        length = "" if cell.positions is None else f"\n{cell.positions} positions"
        return f"{engine}{cell.dtype}\nbatch {cell.batch}{length}"
    name = cell.workload.name and f", {cell.workload.name}"
    return f"{engine}{cell.dtype}\nbatch {cell.batch}{name}\n{cell.workload.prompt_tokens} + {cell.workload.new_tokens}"


def _axis(name: str) -> tuple[str, Callable[[float], str]]:
    """The unit of an axis, and a value on it."""
    unit = KINDS[name].unit
    if unit == "s":
        return "milliseconds", lambda value: f"{1e3 * value:.4g}"
    if unit == "B":
        return "bytes", lambda value: format_size(round(value))
    return unit, "{:.4g}".format


def _value(name: str, value: float) -> str:
    unit = KINDS[name].unit
    if unit == "B":
        return format_size(round(value))
    if unit == "s":
        return f"{value:.2f} s" if value >= 1.0 else f"{value * 1e3:.4g} ms"
    return f"{value:.4g} {unit}"


def _files(comparison: Comparison) -> str:
    rows = zip(comparison.files, map(utc, comparison.started), strict=True)
    return table([("run", "began"), *rows], "<<")
