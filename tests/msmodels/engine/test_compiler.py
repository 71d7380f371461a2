"""A graph that an earlier process compiled is taken where it is the same, and nowhere else."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.child import call_in_child
from msport.msmodels import LanguageModel, load_model
from msport.msmodels.engine import compiler, fingerprint, graph_store
from msport.native import library
from msport.progress import Progress

PROMPT = np.random.default_rng(2).integers(0, 1000, (1, 20))
SHAPE = {"max_length": 40, "prefill_chunk": 16}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder for graphs, not there yet."""
    monkeypatch.setenv("MSPORT_GRAPH_CACHE", str(tmp_path / "graphs"))
    return tmp_path / "graphs"


@pytest.fixture(scope="module")
def scored(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with the graph that scores, compiled once for this module, and the logits of `PROMPT`."""
    graphs = tmp_path_factory.mktemp("compiled") / "graphs"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MSPORT_GRAPH_CACHE", str(graphs))
        return graphs, load_model(folder, **SHAPE).logits(PROMPT)


@pytest.fixture
def expected(store: Path, scored: tuple[Path, np.ndarray]) -> np.ndarray:
    """The logits of `PROMPT`; their graph lies in `store`."""
    shutil.copytree(scored[0], store)
    return scored[1]


def run(folder: str, order: list[str], *, progress: Progress) -> dict[str, Any]:
    """The bytes of each call's logits, which graphs were taken from the store, and parts of their keys."""
    model = load_model(folder, **SHAPE)
    made: dict[str, str] = {}
    for name in order:
        if name == "score":
            made[name] = model.logits(PROMPT).tobytes().hex()
        elif name == "prefill":
            made[name] = model.prefill(PROMPT).tobytes().hex()
        else:
            made[name] = model.decode([7]).tobytes().hex()
    parts = [fingerprint._settings(), fingerprint._sources(), str(library())]
    return {"logits": made, "cached": _cached(model), "parts": parts}


def _run_in_child(folder: Path, order: list[str]) -> Mapping[str, Any]:
    arguments = {"folder": str(folder), "order": order}
    answer: Mapping[str, Any] = call_in_child("msmodels.engine.test_compiler:run", arguments, task="a start")
    return answer


def _cached(model: LanguageModel) -> dict[str, bool]:
    return {name: compiled.cached for name, compiled in model.graphs.compiled.items()}


def test_a_second_start_computes_the_same_bits_from_the_graphs_of_the_first(folder: Path, store: Path) -> None:
    """MindSpore alone would give the second process, whose calls come in another order, the wrong graphs."""
    first = _run_in_child(folder, ["prefill", "decode", "score"])
    assert len(list(store.iterdir())) == 3
    second = _run_in_child(folder, ["score", "prefill", "decode"])
    assert first["parts"] == second["parts"]
    assert first["cached"] == {"prefill": False, "decode": False, "score": False}
    assert second["cached"] == {"prefill": True, "decode": True, "score": True}
    assert first["logits"] == second["logits"]
    assert len(list(store.iterdir())) == 3  # and no folder of a process


@pytest.mark.slow
def test_two_processes_may_start_at_once(folder: Path, store: Path) -> None:
    orders = [["prefill", "score"], ["score", "prefill"]]
    with ThreadPoolExecutor(2) as pool:
        starts = list(pool.map(lambda order: _run_in_child(folder, order), orders))
    later = _run_in_child(folder, ["prefill", "score"])
    assert later["cached"] == {"prefill": True, "score": True}
    assert starts[0]["logits"] == starts[1]["logits"] == later["logits"]
    assert len(list(store.iterdir())) == 2


def test_a_changed_network_does_not_get_the_old_graph(folder: Path, expected: np.ndarray) -> None:
    changed = load_model(folder, **SHAPE)
    changed.graphs.network.model.layers[0].self_attn.scale *= 2
    assert not np.array_equal(changed.logits(PROMPT), expected)
    assert _cached(changed) == {"score": False}
    again = load_model(folder, **SHAPE)
    np.testing.assert_array_equal(again.logits(PROMPT), expected)
    assert _cached(again) == {"score": True}


@pytest.mark.parametrize("content", [b"no graph", None])
def test_a_file_that_holds_no_graph_is_compiled_anew_and_replaced(
    folder: Path, store: Path, expected: np.ndarray, content: bytes | None
) -> None:
    (file,) = store.iterdir()
    made = file.read_bytes()[32:-100] if content is None else content
    file.write_bytes(hashlib.sha256(made).digest() + made)
    for cached in (False, True):
        model = load_model(folder, **SHAPE)
        np.testing.assert_array_equal(model.logits(PROMPT), expected)
        assert _cached(model) == {"score": cached}


def test_counting_other_graphs_than_mindspore_costs_time_alone(
    folder: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler._staged[0], "_number", compiler._staged[0]._number + 3)
    for cached in (False, True):
        model = load_model(folder, **SHAPE)
        np.testing.assert_array_equal(model.logits(PROMPT), expected)
        assert _cached(model) == {"score": cached}


def test_a_folder_that_cannot_be_written_is_a_warning(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MSPORT_GRAPH_CACHE", str(tmp_path / "file" / "graphs"))
    with caplog.at_level(logging.WARNING):
        model = load_model(folder, **SHAPE)
        model.prefill(PROMPT)
        model.logits(PROMPT)
    assert _cached(model) == {"prefill": False, "score": False}
    (message,) = (record.getMessage() for record in caplog.records)
    assert "compiled graphs cannot be kept there (" in message
    assert "MSPORT_GRAPH_CACHE" in message


def run_in_two_stores(folder: str, stores: list[str], *, progress: Progress) -> list[bool]:
    """Whether each of `stores`, the first and the second of a process, holds a graph after a prompt."""
    for store in stores:
        os.environ["MSPORT_GRAPH_CACHE"] = store
        load_model(folder, **SHAPE).prefill(PROMPT)
    return [Path(store).is_dir() for store in stores]


def test_a_folder_that_can_be_written_is_taken_after_one_that_cannot(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stores = [str(tmp_path / "file" / "graphs"), str(tmp_path / "graphs")]
    arguments = {"folder": str(folder), "stores": stores}
    kept = call_in_child("msmodels.engine.test_compiler:run_in_two_stores", arguments, task="two starts")
    assert kept == [False, True]


def test_a_full_disk_is_a_warning_and_the_next_graph_is_tried_again(
    folder: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (file,) = Path(os.environ["MSPORT_GRAPH_CACHE"]).iterdir()
    file.unlink()
    monkeypatch.setattr(graph_store, "write_atomically", fail)
    model = load_model(folder, **SHAPE)
    np.testing.assert_array_equal(model.logits(PROMPT), expected)
    assert "No space left on device" in caplog.text
    assert not list(file.parent.iterdir())


@pytest.mark.parametrize(
    ("mode", "kept", "taken"), [(0o400, None, True), (0o600, None, False), (0o400, -100, False), (0o400, 1, False)]
)
def test_what_mindspore_could_not_write_whole_is_not_taken(
    scored: tuple[Path, np.ndarray], tmp_path: Path, mode: int, kept: int | None, taken: bool
) -> None:
    """It makes a file read-only when it has written it, and does not see that closing it has failed."""
    (file,) = scored[0].iterdir()
    staging = compiler._Staging(tmp_path / "staging")
    staging.put(None)
    written = tmp_path / "staging" / "rank_0" / "graph_cache" / "compile_cache_5.mindir"
    written.write_bytes(file.read_bytes()[32:][:kept])
    written.chmod(mode)
    assert (staging.take() is not None) is taken
    staging.clear()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "value"), [("MSPORT_GRAPH_CACHE", "off"), ("MS_COMPILER_CACHE_ENABLE", "0")])
def test_the_user_may_do_without(
    folder: Path, expected: np.ndarray, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    model = load_model(folder, **SHAPE)
    np.testing.assert_array_equal(model.logits(PROMPT), expected)
    assert _cached(model) == {"score": False}


def test_compiling_writes_nothing_to_stderr(folder: Path, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for cached in (False, True):
        model = load_model(folder, **SHAPE)
        model.prefill(PROMPT)
        assert _cached(model) == {"prefill": cached}
    assert capfd.readouterr().err == ""
