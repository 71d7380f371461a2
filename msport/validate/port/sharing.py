"""Lets networks share one set of weights, for other caches or another kind of layer, without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mindspore import Parameter, nn

from msport.msmodels.engine import Graphs
from msport.msmodels.layers.cache import KeyValueCache
from msport.msmodels.layers.matrices import MatrixCell
from msport.msmodels.layers.rope import RotaryEmbedding
from msport.msmodels.model import LanguageModel
from msport.msmodels.network import build_network


def weights_of(cell: nn.Cell) -> dict[str, Parameter]:
    """The parameters below `cell` that a checkpoint fills, by their names relative to it."""
    found = {}
    for path, owner in _cells(cell):
        for parameter in owner._params.values():
            if parameter is not None:
                _, _, name = parameter.name.rpartition(".")
                found[f"{path}.{name}" if path else name] = parameter
    return found


def share_weights(source: nn.Cell, target: nn.Cell) -> None:
    """Lets `target` use the weights of `source`, which has the same names and shapes."""
    theirs = dict(_cells(source))
    for path, owner in _cells(target):
        for name in _vectors(owner):
            setattr(owner, name, getattr(theirs[path], name))
        if isinstance(owner, MatrixCell):
            for name in owner.matrices():
                owner.share(name, theirs[path])


def with_batch(model: LanguageModel, batch_size: int, max_length: int) -> LanguageModel:
    """`model` for `batch_size` sequences of at most `max_length` tokens at a time, with the same weights."""
    cache = replace(model.graphs.cache, batch=batch_size, max_length=max_length)
    network = build_network(model.config, cache)
    share_weights(model.graphs.network, network)
    return LanguageModel(
        model.folder,
        model.config,
        Graphs(network, cache, model.operators),
        stop_ids=model.stop_ids,
        dtype=model.dtype,
        device=model.device,
        kept=model.kept,
    )


def _cells(cell: nn.Cell) -> Iterator[tuple[str, nn.Cell]]:
    """The cells below `cell` with weights, by path; caches and tables belong to a graph, not to a model."""
    for path, owner in cell.cells_and_names():
        if not isinstance(owner, (KeyValueCache, RotaryEmbedding)):
            yield path, owner


def _vectors(owner: nn.Cell) -> list[str]:
    """The attributes of `owner` that are weights but no matrices."""
    matrices = owner.matrices() if isinstance(owner, MatrixCell) else {}
    held = {id(parameter) for matrix in matrices.values() for parameter in matrix}
    return [name for name, each in owner._params.items() if each is not None and id(each) not in held]
