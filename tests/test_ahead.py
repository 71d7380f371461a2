"""Work that is done ahead is done once, in a process that no test has changed, and what it raises reaches its test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ahead import Pool, waiters_last


def _item(*work: object) -> Any:
    mark = SimpleNamespace(args=work) if work else None
    return SimpleNamespace(get_closest_marker=lambda name: mark)


def note(file: str) -> dict[str, object]:
    with open(file, "a", encoding="utf-8") as notes:
        notes.write("done\n")
    return {"pid": os.getpid(), "variable": os.environ.get("MSPORT_TEST_VARIABLE")}


def stumble(number: int) -> None:
    raise AssertionError(f"the number {number} is odd")


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes") / "notes"


@pytest.fixture(scope="module")
def pool(notes: Path) -> Iterator[Pool]:
    noting = ("test_ahead:note", str(notes))
    pool = Pool([_item(), _item(*noting), _item("test_ahead:stumble", 7), _item(*noting)])
    yield pool
    pool.close()


def test_equal_work_is_done_once_in_another_process_as_it_was_at_the_start(
    pool: Pool, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MSPORT_TEST_VARIABLE", "of a test")
    found = pool.results["test_ahead:note", str(notes)].result()
    assert found["pid"] != os.getpid()
    assert found["variable"] is None
    assert notes.read_text(encoding="utf-8") == "done\n"


def test_what_is_raised_reaches_the_test_that_waits(pool: Pool) -> None:
    with pytest.raises(AssertionError, match="the number 7 is odd"):
        pool.results["test_ahead:stumble", 7].result()


def test_those_that_wait_come_last_and_the_order_stays() -> None:
    items = [_item("a:a", 1), _item(), _item("a:a", 2), _item()]
    waiting, other, later, last = items
    waiters_last(items)
    assert items == [other, last, waiting, later]
