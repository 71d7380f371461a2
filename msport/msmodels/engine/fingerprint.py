"""A key of everything that a compiled graph depends on: equal keys mean equal graphs.

MindSpore makes a graph from source text, values in cells, shapes of inputs and parameters, and its own settings. All of
this goes into the key. If the key would be uncertain (a cell or function from outside msport, a hook, a value of an
unknown type), there is no key, and the graph is compiled each time.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, context, nn
from mindspore._c_expression import ms_ctx_param

from msport import msmodels
from msport.native import library

_FORMAT = 1
_OURS = f"{msmodels.__name__}."
_KNOWN = {"msport", "mindspore", "numpy", *sys.stdlib_module_names}
_IN_GRAPHS = (f"{_OURS}layers", f"{_OURS}ops")

# Attributes of a cell that compiling and running change, and names that only appear in logs.
_PASSING = {"_cells", "_params", "_create_time", "_compile_cache", "_compile_phase", "_compiled", "_phase_cache"}
_PASSING |= {"_has_mutable_args_list", "_is_check_and_refresh", "_scope", "arguments_key", "current_phase"}
_PASSING |= {"sequence_modified", "__compile_cell_hook__", "__parse_method__", "_func_graph_flags"}
_PASSING_SETTINGS = {"enable_compile_cache", "compile_cache_path", "save_graphs", "save_graphs_path", "device_id"}
_PASSING_SETTINGS |= {"cur_step_num", "last_triggered_step"}
# MindSpore 2.10 never initialises it, so it varies between processes; it has no effect on CPU.
_PASSING_SETTINGS |= {"enable_offloading_packed_experts"}
_PASSING_VARIABLES = {"MS_OM_PATH", "MS_SUBMODULE_LOG_v", "MSPORT_CACHE", "MSPORT_CACHE_SIZE", "MSPORT_GRAPH_CACHE"}


class UnknownError(Exception):
    """A graph may depend on something that the key cannot include."""


def fingerprint(cell: nn.Cell, inputs: Sequence[Tensor], operators: str) -> str | None:
    """The key of the graph of `cell` for inputs of the shapes and dtypes of `inputs`, built from `operators`; None
    if uncertain.
    """
    try:
        parts = [
            _FORMAT,
            [ms.__version__, platform.python_version(), np.__version__, platform.machine()],
            _settings(),
            _sources(),
            [operators, str(library())],
            [[list(each.shape), str(each.dtype)] for each in inputs],
            _cell(cell, vars(nn.Cell())),
            dict(_modules(cell)),
        ]
    except UnknownError:
        return None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _settings() -> list[Any]:
    settings = context._context()
    names = sorted(ms_ctx_param.__members__.keys() - _PASSING_SETTINGS)
    values = [str(settings.get_param(ms_ctx_param.__members__[name])) for name in names]
    variables = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("MS_", "MSPORT_")) and name not in _PASSING_VARIABLES
    }
    return [values, variables]


def _sources() -> str:
    """The current text of the source files, because the compiler reads them when it compiles, not at import."""
    digest, folder = hashlib.sha256(), Path(msmodels.__path__[0])
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _cell(cell: nn.Cell, blank: Mapping[str, Any]) -> list[Any]:
    """The attributes of `cell` and its sub-cells that differ from a `blank` cell."""
    kind = type(cell)
    for ancestor in kind.__mro__[: kind.__mro__.index(nn.Cell)]:
        _check_class(ancestor)
    attributes = {}
    for name, value in vars(cell).items():
        if name in _PASSING:
            continue
        if name not in blank:
            attributes[name] = _value(value)
        elif value != blank[name] and value:  # a hook, or a setting for precision or recomputation
            raise UnknownError(name)
    children = {name: None if child is None else _cell(child, blank) for name, child in cell._cells.items()}
    parameters = {name: _value(parameter) for name, parameter in cell._params.items()}
    return [kind.__module__, kind.__qualname__, attributes, children, parameters]


def _check_class(kind: type) -> None:
    """Raises `UnknownError` unless `kind` is an unmodified class of msport or MindSpore."""
    if kind.__module__.startswith("mindspore."):
        return
    for name, value in vars(kind).items():
        home = (kind.__module__, f"{kind.__qualname__}.{name}")
        if isinstance(value, FunctionType) and (value.__module__, value.__qualname__) != home:
            raise UnknownError(home[1])
    if not kind.__module__.startswith(_OURS):
        raise UnknownError(kind.__qualname__)


def _value(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return [type(value).__name__, repr(value)]
    if isinstance(value, (tuple, list)):
        return [type(value).__name__, *(_value(each) for each in value)]
    if isinstance(value, Parameter):
        return [value.name, list(value.shape), str(value.dtype), value.requires_grad]
    if isinstance(value, ms.Type):
        return ["dtype", str(value)]
    if isinstance(value, FunctionType):
        return _function(value)
    raise UnknownError(type(value).__name__)


def _function(function: FunctionType) -> list[str]:
    if function.__module__.partition(".")[0] not in _KNOWN or "<locals>" in function.__qualname__:
        raise UnknownError(function.__qualname__)
    return [function.__module__, function.__qualname__]


def _modules(cell: nn.Cell) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The values of the names that source text may use, in every module from which a graph is built."""
    names = {type(each).__module__ for _, each in cell.cells_and_names()}
    names |= {name for name in sys.modules if name.startswith(_IN_GRAPHS)}
    for name in names:
        if name.startswith(_OURS):
            yield name, {key: _meaning(value) for key, value in vars(sys.modules[name]).items() if key[:2] != "__"}


def _meaning(value: Any) -> Any:
    if isinstance(value, FunctionType):
        return _function(value)
    if isinstance(value, (ModuleType, type)):
        return value.__name__
    if isinstance(value, (bool, int, float, str, tuple)):
        return str(value)
    return type(value).__name__
