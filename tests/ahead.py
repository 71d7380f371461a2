"""Work for processes of their own, done beside the other tests: the graph compiler keeps one processor busy.

A test that is marked ``ahead("module:function", *arguments)`` calls the fixture `ahead` for what the function returned
or raised. The functions are called in other processes from the start of the session on, once for equal arguments, and
the tests that wait for them come last.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import pytest

Work = tuple[Any, ...]
_MOST_WORKERS = 3


class Pool:
    """The work of the chosen tests, begun."""

    def __init__(self, items: list[pytest.Item]) -> None:
        waiting = [work for work in map(work_of, items) if work is not None]
        workers = min(_MOST_WORKERS, max(1, len(os.sched_getaffinity(0)) // 2) + (len(waiting) == len(items)))
        # Not forked: a fork would have what the test of that moment has put in the place of something.
        self._pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_be_silent)
        self.results: dict[Work, Future[Any]] = {}
        for work in dict.fromkeys(waiting):
            self.results[work] = self._pool.submit(_call, *work)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def work_of(item: pytest.Item) -> Work | None:
    mark = item.get_closest_marker("ahead")
    return None if mark is None else mark.args


def waiters_last(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: work_of(item) is not None)


def _be_silent() -> None:
    """What is printed would stand in the output of whichever test runs just then."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for stream in (1, 2):
            os.dup2(nowhere.fileno(), stream)


def _call(name: str, *arguments: Any) -> Any:
    module, _, function = name.partition(":")
    called: Callable[..., Any] = getattr(import_module(module), function)
    return called(*arguments)
