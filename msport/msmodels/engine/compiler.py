"""Compiles a cell, or loads the graph that an earlier process compiled.

MindSpore's own compile cache gives the n-th graph of a process the n-th file of a folder, without comparing them. A
process that compiles its graphs in another order gets wrong graphs. So msport keeps each graph under its own key
(`fingerprint`), and puts only this one graph into a folder of this process before MindSpore looks for it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import mindspore as ms
from google.protobuf.message import DecodeError
from mindspore import Tensor, context, nn
from mindspore._c_expression import ms_ctx_param
from mindspore.graph import api
from mindspore.train import mind_ir_pb2

from msport.msmodels.engine.fingerprint import fingerprint
from msport.msmodels.engine.graph_store import GraphStore, find_store

_log = logging.getLogger(__name__)
_LOG_LEVELS = "MS_SUBMODULE_LOG_v"
_UNTOUCHED = 1  # modification time (seconds since 1970) of a staged file, to recognise one that MindSpore has written


@dataclass(frozen=True, slots=True)
class Compiled:
    """A compiled graph of `cell`; the time of compiling in seconds; `cached`: the graph came from the store.

    `phase` is MindSpore's name of the graph, None if it can be run only through the cell.
    """

    cell: nn.Cell
    seconds: float
    cached: bool
    phase: str | None

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output for inputs of the shapes and dtypes with which the graph was compiled.

        A call of the cell walks through all its cells and parameters each time, to find out whether the graph is still
        the right one: a tenth of a decoding step of a model with 30 small layers.
        """
        if self.phase is None:
            return self.cell(*inputs)
        return api._cell_graph_executor._graph_executor(tuple(inputs), self.phase)


def compile_graph(cell: nn.Cell, inputs: Sequence[Tensor], operators: str) -> Compiled:
    """Compiles `cell` for inputs of the shapes and dtypes of `inputs`. Only one thread may run this at a time
    (`TURN`).
    """
    began = time.perf_counter()
    store = find_store() if _is_understood() and not _has_own_cache() else None
    key = None if store is None else fingerprint(cell, inputs, operators)
    cached = False
    if store is None or key is None:
        cell.compile(*inputs)
    else:
        cached = _compile_through(store, key, cell, inputs)
    phase = cell.compile_phase if _is_understood() else None
    return Compiled(cell, time.perf_counter() - began, cached, phase)


def _is_understood() -> bool:
    """Whether this is the MindSpore version that this file was written for.

    On other devices its back end keeps additional files, and other ways to run a graph, which are untested here.
    """
    version: str = ms.__version__
    return version.startswith("2.10.") and bool(ms.get_context("device_target") == "CPU")


def _has_own_cache() -> bool:
    """Whether the user has configured MindSpore's own cache."""
    return context._context().enable_compile_cache is not None or bool(os.environ.get("MS_COMPILER_CACHE_ENABLE"))


def _compile_through(store: GraphStore, key: str, cell: nn.Cell, inputs: Sequence[Tensor]) -> bool:
    """Compiles, and stores the graph in `store` if it was not there. Returns whether it came from `store`."""
    staging = _staging(store.folder)
    graph = store.read(key)
    try:
        staging.put(graph)
    except OSError as error:
        _warn(store.folder, error.strerror or str(error))
        if not staging.is_known:
            _staged.clear()  # another folder may be writable
        cell.compile(*inputs)
        return False
    try:
        with staging.used():
            cell.compile(*inputs)
        made = staging.take()
        if made is not None:
            store.write(key, made)
    except OSError as error:
        _warn(store.folder, error.strerror or str(error))
        return False
    finally:
        staging.clear()
    return graph is not None and made is None


class _Staging:
    """The folder that MindSpore uses as its cache, with at most one graph in it.

    MindSpore uses the first folder that it gets for the whole process, and counts the graphs.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self._graphs = folder / "rank_0" / "graph_cache"
        self._number = 0
        self.is_known = False  # to MindSpore

    def put(self, graph: bytes | None) -> None:
        """Puts `graph`, and nothing else, where the next compilation looks for it."""
        self.clear()
        self._graphs.mkdir(mode=0o700, parents=True)
        if graph is not None:
            path = self._graphs / f"compile_cache_{self._number}.mindir"
            path.write_bytes(graph)
            os.utime(path, (_UNTOUCHED, _UNTOUCHED))

    @contextmanager
    def used(self) -> Iterator[None]:
        """Switches MindSpore's cache on in this context, and hides the warnings that it prints about every graph."""
        settings, dependencies = context._context(), api._get_compile_cache_dep_files
        settings.set_param(ms_ctx_param.compile_cache_path, str(self._root))
        self.is_known = True
        settings.set_param(ms_ctx_param.enable_compile_cache, 1)
        settings.enable_compile_cache = True
        # MindSpore would parse the user's script and import its imports, to see whether they have changed.
        api._get_compile_cache_dep_files = list
        try:
            with _without_warnings():
                yield
        finally:
            self._number += 1
            api._get_compile_cache_dep_files = dependencies
            settings.enable_compile_cache = None
            settings.set_param(ms_ctx_param.enable_compile_cache, -1)

    def take(self) -> bytes | None:
        """The complete graph that MindSpore wrote; None if it used the existing one."""
        for path in self._graphs.glob("compile_cache_*.mindir"):
            status = path.stat()
            if status.st_mtime == _UNTOUCHED:
                continue
            self._number = int(path.stem.rpartition("_")[2]) + 1
            # MindSpore makes a file read-only after writing it, and continues if it cannot write.
            if status.st_mode & 0o200 == 0:
                return _whole(path.read_bytes())
        return None

    def clear(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)


_staged: list[_Staging] = []


def _staging(folder: Path) -> _Staging:
    """The staging folder of this process, below the first `folder` that was requested."""
    if not _staged:
        _staged.append(_Staging(folder / f"staging-{os.getpid()}-{secrets.token_hex(8)}"))
    return _staged[0]


def _whole(graph: bytes) -> bytes | None:
    """`graph` if MindSpore could write all of it. MindSpore does not notice a full disk when it closes the file."""
    try:
        mind_ir_pb2.ModelProto().ParseFromString(graph)
    except DecodeError:
        return None
    return graph


@contextmanager
def _without_warnings() -> Iterator[None]:
    """In this context MindSpore's compiler logs only errors, unless the user has set a log level."""
    if not os.environ.keys().isdisjoint({"GLOG_v", _LOG_LEVELS}):
        yield
        return
    os.environ[_LOG_LEVELS] = "{PIPELINE:3}"
    try:
        _read_log_levels()
        yield
    finally:
        del os.environ[_LOG_LEVELS]
        _read_log_levels()


def _read_log_levels() -> None:
    """Lets MindSpore read its log levels from the environment again, if it has a function for this."""
    library = ctypes.CDLL(str(Path(ms.__file__).parent / "lib" / "libmindspore_core.so"))
    with suppress(AttributeError):
        library._ZN9mindspore22InitSubModulesLogLevelEv()


@cache
def _warn(folder: Path, reason: str) -> None:
    _log.warning(
        "%s: compiled graphs cannot be kept there (%s), so every start compiles them anew;"
        " name another folder with MSPORT_GRAPH_CACHE, or set it to off",
        folder,
        reason,
    )
