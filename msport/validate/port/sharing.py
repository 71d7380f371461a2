"""Lets networks share one set of weights, for other caches or another kind of layer, without a copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mindspore import Parameter, nn

from msport.msmodels.engine import Graphs
from msport.msmodels.layers.cache import KeyValueCache
from msport.msmodels.layers.rope import RotaryEmbedding
from msport.msmodels.model import LanguageModel
from msport.msmodels.network import build_network


def weights_of(cell: nn.Cell) -> dict[str, Parameter]:
    """The parameters below `cell` that a checkpoint fills, by their names relative to it."""
    return {name: getattr(owner, attribute) for name, owner, attribute in _places(cell)}


def share_weights(source: nn.Cell, target: nn.Cell) -> None:
    """Lets `target` use the weights of `source`, which has the same names and shapes."""
    theirs = weights_of(source)
    for name, owner, attribute in list(_places(target)):
        setattr(owner, attribute, theirs[name])


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
    )


def _places(cell: nn.Cell) -> Iterator[tuple[str, nn.Cell, str]]:
    """Name, owner and attribute of every weight below `cell`; caches and tables belong to a graph, not to a model."""
    for path, owner in cell.cells_and_names():
        if not isinstance(owner, (KeyValueCache, RotaryEmbedding)):
            for attribute in owner._params:
                yield f"{path}.{attribute}" if path else attribute, owner, attribute
