"""Runs our side one decoder layer at a time, as graphs of the model's own cells, chunk by chunk over the layer's cache.

`InMemory` uses the layers of a loaded model; ``streamed`` those of a model that is never loaded as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from msport.checkpoint.dtypes import Array
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM, Decoder
from msport.validate.operations import ATTENDED, FINAL_NORM, OUTPUT
from msport.validate.port.taps import Tap, Taps

Features = Mapping[str, int]


class Block(nn.Cell):
    """One layer: maps ``hidden [batch * seq, hidden]`` at positions from ``start [batch]`` on to the same shape."""

    def __init__(self, decoder: Decoder, layer: nn.Cell, kind: int, batch: int) -> None:
        super().__init__(auto_prefix=False)  # the parameters keep their names from the network
        self.decoder = decoder
        self.layer = layer
        self.kind = kind
        self.batch = batch

    def construct(self, hidden: Tensor, start: Tensor) -> Tensor:
        steps = self.decoder.steps(hidden.reshape(self.batch, -1, hidden.shape[-1]), start)
        return self.layer(hidden, steps[self.kind])


class Embed(nn.Cell):
    """Maps int ``ids [1, seq]`` to the residual stream before the first layer, ``[seq, hidden]``."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__(auto_prefix=False)
        self.decoder = decoder

    def construct(self, ids: Tensor) -> Tensor:
        return self.decoder.embed(ids).astype(ms.float32)


class Head(nn.Cell):
    """Maps the residual stream after the last layer, ``[rows, hidden]``, to logits, float32 ``[rows, vocab]``."""

    def __init__(self, network: CausalLM) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, hidden: Tensor) -> Tensor:
        return self.network.logits(hidden)


class LayerRunner:
    """One layer. Its graphs are compiled at first use; every run starts a new sequence."""

    def __init__(self, block: Block, cache: CacheShape, hidden: int, features: Features) -> None:
        self.layer = block.layer
        self._block = block
        self._cache = cache
        self._taps = Taps(cache.chunk, hidden, {ATTENDED: hidden, **features})

    def run(self, states: Array, attended: Array | None = None) -> dict[str, Array]:
        """Runs ``states [tokens, hidden]`` through the layer; returns the outputs ``[tokens, features]`` of its
        operations by name.

        With `attended`, the feed-forward gets this residual stream ``[tokens, hidden]`` instead of that after our
        attention.
        """
        chunk, pieces = self._cache.chunk, []
        with self._taps.on(self.layer):
            for start in range(0, len(states), chunk):
                count = min(chunk, len(states) - start)
                self._taps.isolate(None if attended is None else _padded(attended[start : start + count], chunk))
                output = self._call(_padded(states[start : start + count], chunk), start)[:count]
                pieces.append(self._taps.read(count) | {OUTPUT: output})
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}

    def decode(self, before: Array, states: Array) -> Array:
        """The output ``[tokens, hidden]`` for ``states [tokens, hidden]``, one token at a time after those `before`."""
        self.run(before)
        with self._taps.on(self.layer):
            return np.concatenate([self._call(row[None], len(before) + n) for n, row in enumerate(states)])

    def _call(self, states: Array, start: int) -> Array:
        hidden = Tensor(np.ascontiguousarray(states)).astype(self._cache.dtype)
        output: Array = self._block(hidden, Tensor(np.array([start], np.int32))).astype(ms.float32).asnumpy()
        return output


class InMemory:
    """The blocks of a network with all weights in memory; its caches hold one sequence."""

    def __init__(self, network: CausalLM, cache: CacheShape, hidden: int) -> None:
        self._network = network
        self._cache = cache
        self._hidden = hidden

    @contextmanager
    def embedding(self) -> Iterator[Callable[[Array], Array]]:
        """Yields a function from ids ``[tokens]`` to the residual stream before the first layer, ``[tokens,
        hidden]``.
        """
        embed = Embed(self._network.model)
        yield lambda ids: run_embed(embed, ids, self._cache.chunk)

    @contextmanager
    def layer(self, index: int, features: Features) -> Iterator[LayerRunner]:
        """Yields the runner of layer `index`; `features` maps each operation to keep to its number of features."""
        decoder = self._network.model
        block = Block(decoder, decoder.layers[index], decoder.kinds[index], self._cache.batch)
        yield LayerRunner(block, self._cache, self._hidden, features)

    @contextmanager
    def head(self) -> Iterator[HeadRunner]:
        """Yields the final norm and the head."""
        yield HeadRunner(self._network, self._cache, self._hidden)


class HeadRunner:
    """The final norm and the head, one chunk of rows at a time."""

    def __init__(self, network: CausalLM, cache: CacheShape, hidden: int) -> None:
        self._network = network
        self._cache = cache
        self._head = Head(network)
        self._norm = ms.Parameter(Tensor(np.zeros((cache.chunk, hidden), np.float32)), name=f"tap_{FINAL_NORM}")

    def __call__(self, states: Array) -> Iterator[tuple[int, Array, Array]]:
        """Yields first row, normed states ``[n, hidden]`` and logits ``[n, vocab]`` of consecutive chunks."""
        chunk, decoder = self._cache.chunk, self._network.model
        norm = decoder.norm
        decoder.norm = Tap(norm, self._norm)
        try:
            for start in range(0, len(states), chunk):
                count = min(chunk, len(states) - start)
                hidden = Tensor(_padded(states[start : start + count], chunk)).astype(self._cache.dtype)
                logits = self._head(hidden).asnumpy()[:count]
                yield start, self._norm.asnumpy()[:count].copy(), logits
        finally:
            decoder.norm = norm


def run_embed(embed: Embed, ids: Array, chunk: int) -> Array:
    """Runs int ``ids [tokens]`` through `embed`, one chunk at a time; returns ``[tokens, hidden]``."""
    pieces = []
    for start in range(0, len(ids), chunk):
        piece = np.zeros((1, chunk), np.int32)
        count = min(chunk, len(ids) - start)
        piece[0, :count] = ids[start : start + count]
        pieces.append(embed(Tensor(piece)).asnumpy()[:count])
    return np.concatenate(pieces)


def _padded(rows: Array, count: int) -> Array:
    """`rows`, padded with zeros to `count` rows, float32."""
    padded = np.zeros((count, rows.shape[1]), np.float32)
    padded[: len(rows)] = rows
    return padded
