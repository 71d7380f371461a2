"""A comparison as text for a terminal, and as a page with charts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from msport.bench.caveats import is_caution
from msport.bench.charts import PER_CHART, point_of
from msport.bench.compare import COMPARED, Change, Comparison
from msport.bench.differences import OTHER_THING
from msport.bench.figures import KINDS, Cell, Figure, axis_of, value_text
from msport.report.chart import ChartRow, Mark, bar_chart, row_chart
from msport.report.formatting import utc
from msport.report.page import Banner, heading, remarks, render, section
from msport.report.scale import linear
from msport.report.table import INDENT, Table

_WORDS = {"better": "better", "worse": "WORSE", "noise": "noise", "unknown": "no spread"}
_MARKED = ("better", "worse")
_RATE = " tokens/s"  # shown in the title of a row, not in its cells


def render_comparison(comparison: Comparison) -> str:
    """A table for each run compared with the first, with the limits of noise."""
    return "\n".join(_lines(comparison))


def render_comparison_page(comparison: Comparison) -> str:
    """The same with charts: each figure of all runs, and each change with its noise."""
    notes = list(dict.fromkeys(note for each in comparison.others for note in each.notes))
    cautions = [note for note in notes if is_caution(note) or note.endswith(OTHER_THING)]
    others = [note for note in notes if note not in cautions]
    body = [_files(comparison)]
    if others:
        body.append(section("What else differs", remarks(others)))
    body += list(_figures(comparison))
    for each in comparison.others:
        title = f"All figures of {comparison.first.file} and {each.run.file}"
        body.append(section(title, _table(each.changes).html()))
    banners = [_banner(comparison), *([Banner("caution", "CAUTION", cautions)] if cautions else [])]
    said = "the first run beside each of the others"
    return render("msport bench --compare", "comparison of runs", said, banners, body)


def _banner(comparison: Comparison) -> Banner:
    everything = [change for each in comparison.others for change in each.changes]
    lines = [f"{each.run.file}: {_verdict(each.changes)[1]}, {_summary(each.changes)}" for each in comparison.others]
    return Banner(*_verdict(everything), lines if len(lines) > 1 else [_summary(everything)])


def _verdict(changes: Sequence[Change]) -> tuple[str, str]:
    """The style of the banner, and its word."""
    verdicts = {each.verdict for each in changes}
    if not verdicts - {"unknown"}:
        return "caution", "NOT JUDGED"
    if "worse" in verdicts:
        return "bad", "MIXED" if "better" in verdicts else "WORSE"
    return "good", "BETTER" if "better" in verdicts else "NO CHANGE"


def _lines(comparison: Comparison) -> Iterator[str]:
    yield f"first: {comparison.first.file} ({utc(comparison.first.started)})"
    for each in comparison.others:
        yield ""
        yield f"beside: {each.run.file} ({utc(each.run.started)})"
        yield ""
        if each.changes:
            yield from _table_lines(each.changes)
            yield ""
        yield from (f"note: {note}" for note in each.notes)
        yield f"{_verdict(each.changes)[1]}: {_summary(each.changes)}"


def _table_lines(changes: Sequence[Change]) -> Iterator[str]:
    """The lines of a table, with the figures of each cell below its name."""
    shown = _table(changes)
    cells = ["", *(row[0] for row in shown.rows)]
    for cell, line in zip(cells, shown.without([""]).lines(INDENT), strict=True):
        if cell:
            yield cell
        yield line


def _table(changes: Sequence[Change]) -> Table:
    rows = [
        (
            "" if before is not None and before.cell == each.cell else each.cell.removeprefix("msport "),
            _titled(each.figure),
            value_text(each.figure, each.before).removesuffix(_RATE),
            value_text(each.figure, each.after).removesuffix(_RATE),
            f"{each.after / each.before - 1:+.1%}",
            "" if each.noise is None else f"{100 / (1 + each.noise) - 100:.1f} to {100 * each.noise:+.1f}%",
            _WORDS[each.verdict],
        )
        for before, each in zip([None, *changes], changes, strict=False)
    ]
    marks = [each.verdict if each.verdict in _MARKED else "" for each in changes]
    return Table(("", "figure", "first", "then", "change", "noise", "verdict"), rows, "<<>>>><", marks)


def _titled(name: str) -> str:
    """The title of a figure, with the unit if it is a rate."""
    title = KINDS[name].title.removesuffix(", prefill included")
    return f"{title},{_RATE}" if KINDS[name].unit == _RATE.strip() else title


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
    """A chart for each figure with a bar for each run, in groups of workloads that fit on a page."""
    for name in COMPARED:
        cells = [cell for cell in comparison.first.cells if name in cell.figures]
        charts = []
        for begin in range(0, len(cells), PER_CHART):
            some = cells[begin : begin + PER_CHART]
            series = [
                (run.file, [point_of(_figure(run.cells, cell, name)) for cell in some]) for run in comparison.runs
            ]
            up, show = axis_of(name)
            charts.append(bar_chart([_label(cell) for cell in some], series, up=up, show=show))
        charts += list(_changes(comparison, name))
        if charts:
            yield section(KINDS[name].title[:1].upper() + KINDS[name].title[1:], "\n".join(charts))


def _changes(comparison: Comparison, name: str) -> Iterator[str]:
    """A chart of the changes of a figure for each later run."""
    labels = {cell.title: _label(cell).replace("\n", ", ") for cell in comparison.first.cells}
    for each in comparison.others:
        judged = [change for change in each.changes if change.figure == name and change.noise is not None]
        if judged:
            yield heading(f"{each.run.file} beside the first")
            yield _change_chart([(labels[change.cell], change) for change in judged])


def _change_chart(changes: Sequence[tuple[str, Change]]) -> str:
    """A dot for each change, to the right if it is better; the band around zero is noise."""
    noises = sorted(each.noise or 0.0 for _, each in changes)
    # A band may exceed the chart, so that one extreme figure does not hide the others.
    largest = max([0.02, 1.5 * noises[len(noises) // 2], *(1.1 * abs(each.change) for _, each in changes)])
    return row_chart(
        [ChartRow(label, [_change_mark(each)]) for label, each in changes],
        linear(-largest, largest, lambda share: f"{100 * share:+.3g}%" if share else "0"),
        across="to the right is better; a dot inside its grey band is noise",
    )


def _change_mark(change: Change) -> Mark:
    kind = {"better": "good", "worse": "bad"}.get(change.verdict, "soft")
    said = f"{change.change or 0.0:+.1%}"  # avoids -0.0 %
    return Mark(change.change, said, kind, note=said, band=change.noise or 0.0)


def _figure(cells: Sequence[Cell], wanted: Cell, name: str) -> Figure | None:
    """The figure `name` of the cell with the key of `wanted`."""
    return next((cell.figures.get(name) for cell in cells if cell.key == wanted.key), None)


def _label(cell: Cell) -> str:
    """Three short lines: engine, number of sequences, prompt."""
    engine = "" if cell.engine == "msport" else f"{cell.engine} "
    if cell.workload is None:
        length = "" if cell.positions is None else f"\n{cell.positions} positions"
        return f"{engine}{cell.dtype}\nbatch {cell.batch}{length}"
    name = cell.workload.name and f", {cell.workload.name}"
    return f"{engine}{cell.dtype}\nbatch {cell.batch}{name}\n{cell.workload.prompt_tokens} + {cell.workload.new_tokens}"


def _files(comparison: Comparison) -> str:
    return Table(("run", "began"), [(run.file, utc(run.started)) for run in comparison.runs], "<<").html()
