"""Measurements as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msport.bench.measure.session import Session
from msport.bench.measurements import Measurements
from msport.bench.published import describe_published
from msport.bench.suites import Unavailable
from msport.bench.text_grid import grid_lines
from msport.bench.text_single import session_lines
from msport.report.layout import counted, utc


def render_text(report: Measurements, published: bool = False) -> str:
    """Everything that `report` says: one workload in about thirty lines, a grid as tables.

    `published` adds what others published about models of this architecture.
    """
    return "\n".join(_lines(report, published))


def _lines(report: Measurements, published: bool) -> Iterator[str]:
    yield from _heading(report)
    single = len(report.sessions) == 1 and len(report.sessions[0].results) == 1
    if single:
        session = report.sessions[0]
        costs, limits = report.costs(session), report.limits_of(session)
        yield from session_lines(session, report.startups[0], report.baseline_of(session), costs, limits)
    else:
        yield from grid_lines(report)
    if report.unavailable:
        yield ""
        yield "not available"
        yield from (f"  {line}" for line in unavailable_lines(report.unavailable))
    if report.notes:
        yield ""
        yield from (f"note: {note}" for note in report.notes)
    if published:
        yield ""
        yield from describe_published(report.setup.architecture)


def unavailable_lines(parts: Iterable[Unavailable]) -> Iterator[str]:
    """One line for each dtype and reason."""
    batches: dict[tuple[str, tuple[int, ...], str], list[int]] = {}
    for part in parts:
        batches.setdefault((part.dtype, part.prompts, part.reason), []).append(part.batch)
    for (dtype, prompts, reason), several in batches.items():
        yield f"{dtype}, batch {_listed(several)}, prompt {_listed(prompts)}: {reason}"


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


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


def engine_lines(report: Measurements) -> list[str]:
    """What ran, in which versions, and how: a line for each engine and dtype."""
    return list(dict.fromkeys(map(_engine_line, (*report.sessions, *report.baselines))))


def _engine_line(session: Session) -> str:
    packages: Sequence[str] = ("mindspore",) if session.engine == "msport" else ("torch", "transformers")
    versions = ", ".join(f"{name} {session.versions[name]}" for name in packages)
    details = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in session.details.items())
    packed = ", experts packed as MXFP4," if session.packed else ""
    return (
        f"{session.engine}: {session.dtype}{packed} on {session.device}, {versions}, {details},"
        f" max length {session.max_length}"
    )
