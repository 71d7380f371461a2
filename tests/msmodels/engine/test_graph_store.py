"""Compiled graphs on disk: whole or not there, and within a limit."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from msport.errors import UsageError
from msport.msmodels.engine.graph_store import GraphStore, find_store

GRAPH = bytes(range(256)) * 4


@pytest.fixture
def store(tmp_path: Path) -> GraphStore:
    return GraphStore(tmp_path / "graphs", 10_000)


def test_what_was_written_is_read(store: GraphStore) -> None:
    assert store.read("a") is None
    store.write("a", GRAPH)
    assert store.read("a") == GRAPH
    assert store.read("b") is None


@pytest.mark.parametrize("kept", [0, 31, 32, 33, len(GRAPH) + 31])
def test_a_torn_file_is_no_graph(store: GraphStore, kept: int) -> None:
    store.write("a", GRAPH)
    file = store.folder / "a.graph"
    file.write_bytes(file.read_bytes()[:kept])
    assert store.read("a") is None


@pytest.mark.parametrize("position", [0, 40, len(GRAPH) + 31])
def test_a_file_with_another_byte_is_no_graph(store: GraphStore, position: int) -> None:
    store.write("a", GRAPH)
    file = store.folder / "a.graph"
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    assert store.read("a") is None


def test_the_least_recently_used_make_room(store: GraphStore) -> None:
    for age, name in enumerate(("c", "b", "a")):
        store.write(name, bytes(3000))
        os.utime(store.folder / f"{name}.graph", (1000 + age, 1000 + age))
    assert store.read("c") is not None  # which makes it the last one used
    store.write("d", bytes(3000))
    assert sorted(path.stem for path in store.folder.iterdir()) == ["a", "c", "d"]


def test_a_graph_beyond_the_limit_is_not_kept(store: GraphStore) -> None:
    store.write("a", GRAPH)
    store.write("b", bytes(10_000))
    assert [path.name for path in store.folder.iterdir()] == ["a.graph"]


def test_what_a_killed_process_left_is_removed_after_a_day(store: GraphStore) -> None:
    left = store.folder / "staging-7-abc" / "rank_0" / "graph_cache" / "compile_cache_0.mindir"
    left.parent.mkdir(parents=True)
    left.write_bytes(GRAPH)
    temporary = store.folder / ".a.graph.0123.tmp"
    temporary.write_bytes(GRAPH)
    store.write("a", GRAPH)
    assert left.exists()
    assert temporary.exists()
    yesterday = time.time() - 2 * 24 * 3600
    for path in [left, *left.parents[:3], temporary]:
        os.utime(path, (yesterday, yesterday))
    store.write("b", GRAPH)
    assert sorted(path.name for path in store.folder.iterdir()) == ["a.graph", "b.graph"]


def test_the_environment_says_where_graphs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MSPORT_GRAPH_CACHE", raising=False)
    monkeypatch.delenv("MSPORT_CACHE_SIZE", raising=False)
    monkeypatch.setenv("MSPORT_CACHE", str(tmp_path))
    assert find_store() == GraphStore(tmp_path / "graphs", 10**9)
    monkeypatch.setenv("MSPORT_GRAPH_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("MSPORT_CACHE_SIZE", "200MB")
    assert find_store() == GraphStore(tmp_path / "elsewhere", 200 * 10**6)
    monkeypatch.setenv("MSPORT_GRAPH_CACHE", "off")
    assert find_store() is None


def test_an_invalid_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_CACHE_SIZE", "much")
    with pytest.raises(UsageError, match="MSPORT_CACHE_SIZE: 'much' is not a size"):
        find_store()
