"""Our side for a model that does not fit in memory: one layer at a time, in graphs that are compiled once.

Layers with the same window and shapes differ only in their weights and run in the same graph: the weights of the next
layer replace those of the last one. Kinds of layers whose weights have the same shapes share the memory of the weights.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mindspore as ms
from mindspore import nn

from msport.architectures import ARCHITECTURES
from msport.checkpoint import dtypes, open_checkpoint
from msport.checkpoint.dtypes import Array
from msport.msmodels import ops
from msport.msmodels.computation import DTYPES, keep
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.loading import configure
from msport.msmodels.network import build_network
from msport.msmodels.weights import place_weight
from msport.validate.port.blocks import Block, Embed, Features, HeadRunner, LayerRunner, run_embed
from msport.validate.port.choice import Port
from msport.validate.port.sharing import share_weights, weights_of

Shapes = tuple[tuple[str, str, tuple[int, ...]], ...]


class Streamed:
    """The blocks of our side. Weights are read when a block runs."""

    def __init__(self, port: Port, max_length: int, chunk: int) -> None:
        config = port.config
        self.device: str = ms.get_context("device_target")
        self.cache = CacheShape(1, max_length, min(chunk, max_length), DTYPES[port.dtype])
        self._config = config
        self._dtype = dtypes.by_name(port.dtype)
        self._checkpoint = open_checkpoint(port.folder)
        configure(self.device)
        self.operators = ops.bind(self.device, self.cache.dtype)
        self._kept = keep(config, self._checkpoint, port.dtype, self.operators)
        self._network = build_network(config, self.cache, self._kept)
        self._weights = ARCHITECTURES[config.architecture].weights(config)
        # A graph collects every parameter below its cell, so a stage must not hold cells that it does not need.
        decoder: Any = self._network.model
        self._layers: list[nn.Cell] = list(decoder.layers)
        self._embed_tokens: Any = decoder.embed_tokens
        self._norm: Any = decoder.norm
        decoder.layers = decoder.embed_tokens = decoder.norm = None
        self._runners: dict[tuple[int | None, Shapes], LayerRunner] = {}

    @contextmanager
    def embedding(self) -> Iterator[Callable[[Array], Array]]:
        """Yields a function from ids ``[tokens]`` to the residual stream before the first layer, ``[tokens,
        hidden]``.
        """
        decoder: Any = self._network.model
        decoder.embed_tokens = self._embed_tokens
        self._place("model.embed_tokens.", decoder.embed_tokens)
        embed = Embed(decoder)
        try:
            yield lambda ids: run_embed(embed, ids, self.cache.chunk)
        finally:
            decoder.embed_tokens = None
            if not self._config.tie_word_embeddings:
                self._embed_tokens = None
            gc.collect()

    @contextmanager
    def layer(self, index: int, features: Features) -> Iterator[LayerRunner]:
        """Yields the runner of layer `index` with its weights; it may be the runner of an earlier layer with new
        weights.
        """
        layer = self._layers[index]
        key = (self._config.windows[index], _shapes(layer))
        if key not in self._runners:
            self._share(layer)
            decoder = self._network.model
            block = Block(decoder, layer, decoder.kinds[index], self.cache.batch)
            self._runners[key] = LayerRunner(block, self.cache, self._config.hidden_size, features)
        runner = self._runners[key]
        self._place(f"model.layers.{index}.", runner.layer)
        yield runner

    @contextmanager
    def head(self) -> Iterator[HeadRunner]:
        """Yields the final norm and the head; after this, no layer can run."""
        self._runners.clear()
        self._layers.clear()
        gc.collect()
        decoder = self._network.model
        decoder.norm = self._norm
        self._place("model.norm.", decoder.norm)
        if self._config.tie_word_embeddings:
            decoder.embed_tokens = self._embed_tokens
            self._place("model.embed_tokens.", decoder.embed_tokens)
        else:
            self._place("lm_head.", self._network.lm_head)
        yield HeadRunner(self._network, self.cache, self._config.hidden_size)

    def _share(self, layer: nn.Cell) -> None:
        """Lets `layer` use the parameters of a layer of another kind with the same shapes, if one has run."""
        for (_, shapes), runner in self._runners.items():
            if shapes == _shapes(layer):
                share_weights(runner.layer, layer)
                return

    def _place(self, prefix: str, cell: nn.Cell) -> None:
        parameters = {prefix + name: parameter for name, parameter in weights_of(cell).items()}
        for weight in self._weights:
            if weight.name.startswith(prefix):
                place_weight(parameters, weight, self._checkpoint, self._dtype, self._kept.get(weight.name))
        self._checkpoint.release()  # otherwise the file's pages add up layer by layer

    def close(self) -> None:
        self._checkpoint.close()


def _shapes(layer: nn.Cell) -> Shapes:
    return tuple((name, str(each.dtype), tuple(each.shape)) for name, each in weights_of(layer).items())
