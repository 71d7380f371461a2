"""Several benchmarks side by side: what changed, and what is noise.

A change is noise if it is not larger than the larger of the two spreads that the benchmarks state (the range of their
repeats in several processes). A change below 1 % is always noise. If the machine's own speed differs between the runs,
a smaller change than that is noise too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msport.bench.caveats import UNSTEADY
from msport.bench.differences import Run, describe_differences
from msport.bench.document import read_report
from msport.bench.figures import KINDS, Cell, Figure, make_cells
from msport.bench.measurements import Measurements
from msport.report.document import to_json

SCHEMA = "msport.bench.compare/1"

# The compared figures. The others follow from these, or have no spread.
COMPARED = (
    "prefill_rate",
    "first_token",
    "decode_p50",
    "throughput",
    "load",
    "compile_cold",
    "compile_warm",
    "peak_resident",
    "peak_device",
)

# A smaller change is always noise: the place of code and data in memory alone can cause it.
SMALLEST = 0.01


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of the first run and of another one.

    `change` is the larger value / the smaller one - 1, positive if the second run is better; the order of the runs
    changes only its sign. `spread` is the larger of the two stated spreads. `noise` is the same, but at least
    `SMALLEST` and the drift of an unsteady machine. Both are None if a run had one repeat and so no spread.
    """

    cell: str
    figure: str
    before: float
    after: float
    change: float
    spread: float | None
    noise: float | None

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, ``noise``, or ``unknown`` without a spread."""
        if self.noise is None:
            return "unknown"
        if abs(self.change) <= self.noise:
            return "noise"
        return "better" if self.change > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Beside:
    """A run compared with the first one: the `changes`, and `notes` on other differences."""

    run: Run
    changes: tuple[Change, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The `first` run with each of the `others`."""

    first: Run
    others: tuple[Beside, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return (self.first, *(each.run for each in self.others))

    def to_document(self) -> dict[str, Any]:
        """The comparison as JSON values; docs/schemas/bench-compare.schema.json describes them."""
        return {
            "schema": SCHEMA,
            "before": {"file": self.first.file, "started": self.first.started},
            "comparisons": [
                {
                    "file": each.run.file,
                    "started": each.run.started,
                    "changes": [{**asdict(change), "verdict": change.verdict} for change in each.changes],
                    "notes": list(each.notes),
                }
                for each in self.others
            ],
        }

    def to_json(self) -> str:
        """`to_document` as one JSON text."""
        return to_json(self.to_document())


def compare_files(paths: Sequence[Path]) -> Comparison:
    """Compares the reports of ``msport bench --json`` in `paths`, each later one with the first.

    Raises `UsageError` for a file that is not such a report.
    """
    return compare([str(path) for path in paths], [read_report(path) for path in paths])


def compare(files: Sequence[str], reports: Sequence[Measurements]) -> Comparison:
    """The same for `reports` in memory; `files` are their names."""
    first, *others = (Run(*pair, tuple(make_cells(pair[1]))) for pair in zip(files, reports, strict=True))
    return Comparison(first, tuple(_beside(first, other) for other in others))


def _beside(first: Run, other: Run) -> Beside:
    drift = _drift(first.report, other.report)
    changes = tuple(_changes(first.cells, other.cells, drift))
    return Beside(other, changes, tuple(describe_differences(first, other, drift)))


def relative_change(kind: str, before: float, after: float) -> float:
    """The larger of two figures of `kind` / the smaller one - 1, positive if `after` is better."""
    better = (after > before) is KINDS[kind].higher_is_better
    share = max(before, after) / min(before, after) - 1.0
    return share if better else -share


def _changes(before: Sequence[Cell], after: Sequence[Cell], drift: float) -> Iterator[Change]:
    others = {cell.key: cell for cell in after}
    for cell in before:
        other = others.get(cell.key)
        for name in COMPARED if other else ():
            if name in cell.figures and other and name in other.figures:
                pair = cell.figures[name], other.figures[name]
                if min(each.value for each in pair) > 0.0:  # a very short compilation is measured as 0
                    yield _change(cell.title, name, *pair, drift)


def _change(cell: str, name: str, before: Figure, after: Figure, drift: float) -> Change:
    spread = None if before.spread is None or after.spread is None else max(before.spread, after.spread)
    floor = SMALLEST if KINDS[name].unit == "B" else max(SMALLEST, drift)
    noise = None if spread is None else max(floor, spread)
    change = relative_change(name, before.value, after.value)
    return Change(cell, name, before.value, after.value, change, spread, noise)


def _drift(before: Measurements, after: Measurements) -> float:
    """The share by which the machine's own speed differs between two runs; 0 for a usual difference.

    A change of speed within one run also affects its repeats, so it is part of their spread.
    """
    speeds, others = _speeds(before), _speeds(after)
    changes = [max(speeds[key], others[key]) / min(speeds[key], others[key]) for key in speeds.keys() & others.keys()]
    drift = max(changes, default=1.0) - 1.0
    return drift if drift > UNSTEADY else 0.0


def _speeds(report: Measurements) -> dict[tuple[str, str], float]:
    """The best result of each probe of the machine, by dtype and method."""
    speeds: dict[tuple[str, str], float] = {}
    for dtype, limits in report.limits.items():
        for probe in (*limits.memory, *limits.arithmetic):
            key = (dtype, probe.method)
            speeds[key] = max(speeds.get(key, 0.0), probe.best)
    return speeds
