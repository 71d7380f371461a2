"""A bar on a terminal counts in whole steps, or shows the time where there is one step."""

from __future__ import annotations

import io
import threading
from typing import Any

import pytest

from msport.cli import progress
from msport.progress import Step


@pytest.fixture
def notes() -> list[str]:
    """What stands behind the bars."""
    return []


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch, notes: list[str]) -> list[dict[str, Any]]:
    """The options of each bar that is made."""
    made: list[dict[str, Any]] = []

    class Bar:
        n = 0

        def __init__(self, **options: Any) -> None:
            made.append(options)

        def update(self, amount: int) -> None:
            self.n += amount

        def set_postfix_str(self, note: str, refresh: bool) -> None:
            notes.append(note)

        def close(self) -> None:
            pass

    monkeypatch.setattr(progress, "tqdm", Bar)
    return made


def test_steps_are_whole_numbers_and_many_of_them_are_scaled(bars: list[dict[str, Any]]) -> None:
    with progress.ProgressBar() as bar:
        for phase, total in (("load", 1), ("layers", 26), ("weights", 10**9)):
            bar(Step(phase, 0, total))
            bar(Step(phase, total, total))
    assert [each["desc"] for each in bars] == ["load", "layers", "weights"]
    assert [each["unit_scale"] for each in bars] == [False, False, True]
    assert [each.get("bar_format") for each in bars] == ["{desc} [{elapsed}]", None, None]


def test_bytes_are_always_scaled(bars: list[dict[str, Any]]) -> None:
    with progress.ProgressBar("B") as bar:
        bar(Step("write", 0, 1, "", 0))
        bar(Step("write again", 0, 10**9, "", 0))
    assert [(each["unit"], each["unit_scale"]) for each in bars] == [("B", True)] * 2


@pytest.mark.parametrize(("columns", "width"), [("120", 40), ("60", 20)])
def test_a_bar_is_as_wide_for_every_name(
    bars: list[dict[str, Any]], notes: list[str], monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with progress.ProgressBar("B") as bar:
        for name in ("model.norm.weight", "model.layers.11.mlp.experts.gate_up_proj_blocks", "m" * 20):
            bar(Step("write", 1, 10, name))
    assert {len(note) for note in notes} == {width}
    assert notes[0] == "model.norm.weight".ljust(width)
    assert notes[1].endswith("gate_up_proj_blocks"[-10:])


def test_the_clock_of_a_phase_without_amounts_runs_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = threading.Semaphore(0)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    class Bar:
        n = 0

        def __init__(self, **options: Any) -> None:
            pass

        def update(self, amount: int) -> None:
            pass

        def refresh(self) -> None:
            shown.release()

        def close(self) -> None:
            pass

    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_TICKS", 0.01)
    monkeypatch.setattr("sys.stderr", Terminal())
    with progress.ProgressBar() as bar:
        bar(Step("load reference"))
        assert all(shown.acquire(timeout=60) for _ in range(3))
    before = threading.active_count()
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress.ProgressBar() as bar:
        bar(Step("load reference"))
        assert threading.active_count() <= before  # a file or a pipe has no clock
