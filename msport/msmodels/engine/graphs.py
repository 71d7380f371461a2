"""Prompts of any length through graphs of fixed shape.

Three graphs exist, each compiled when first needed: a chunk of the prompt with the logits of one row a sequence, the
same chunk with all its logits (scoring), and one token a sequence. Nothing a caller passes makes a fourth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from msport.checkpoint.dtypes import Array
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM


class ResidualStream(nn.Cell):
    """Every layer's hidden states, ``[layers + 1, batch * seq, hidden]``, of ``ids [batch, seq]``."""

    def __init__(self, network: CausalLM) -> None:
        super().__init__(auto_prefix=False)  # the parameters keep the names they have in `network`
        self.network = network

    def construct(self, ids: Tensor, start: Tensor) -> Tensor:
        return ops.stack(self.network.model(ids, start), 0).astype(ms.float32)


class Graphs:
    """A network, its caches, and how far each of the ``cache.batch`` sequences has come."""

    def __init__(self, network: CausalLM, cache: CacheShape) -> None:
        self.network = network
        self.cache = cache
        self.lengths = np.zeros(cache.batch, np.int32)
        self._residual_stream: ResidualStream | None = None

    def prefill(self, prompts: Sequence[Array]) -> Array:
        """Starts one sequence per prompt; float32 logits after the last token of each, ``[batch, vocab]``."""
        for ids, start in self._chunks(prompts):
            last = np.array([len(prompt) for prompt in prompts]) - 1 - start
            rows = np.arange(self.cache.batch) * self.cache.chunk + np.clip(last, 0, self.cache.chunk - 1)
            logits = self._run(ids, start, rows)
        self.lengths = np.array([len(prompt) for prompt in prompts], np.int32)
        return _host(logits)

    def decode(self, tokens: Array) -> Array:
        """Appends ``tokens [batch]`` to the sequences; float32 logits after them, ``[batch, vocab]``."""
        logits = self._run(tokens.reshape(-1, 1), self.lengths, np.arange(self.cache.batch))
        self.lengths = self.lengths + 1
        return _host(logits)

    def score(self, prompts: Sequence[Array]) -> Iterator[Array]:
        """Float32 logits of every token, a chunk at a time: ``[batch, chunk, vocab]``, padding at the end included."""
        rows = np.arange(self.cache.batch * self.cache.chunk)
        for ids, start in self._chunks(prompts):
            yield _host(self._run(ids, start, rows)).reshape(self.cache.batch, self.cache.chunk, -1)

    def hidden_states(self, prompts: Sequence[Array]) -> Iterator[Array]:
        """The residual stream a chunk at a time: ``[layers + 1, batch, chunk, hidden]``, padding included."""
        if self._residual_stream is None:
            self._residual_stream = ResidualStream(self.network)
        for ids, start in self._chunks(prompts):
            states = _host(self._residual_stream(Tensor(ids), Tensor(start)))
            yield states.reshape(states.shape[0], self.cache.batch, self.cache.chunk, -1)

    def _run(self, ids: Array, start: Array, rows: Array) -> Tensor:
        return self.network(Tensor(ids.astype(np.int32)), Tensor(start.astype(np.int32)), Tensor(rows.astype(np.int32)))

    def _chunks(self, prompts: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
        """Pairs of ids ``[batch, chunk]``, padded at the end, and the position each row starts at, ``[batch]``.

        A prompt shorter than the others repeats its last chunk until they end: that writes to the caches what is there.
        """
        chunk = self.cache.chunk
        counts = [-(-len(prompt) // chunk) for prompt in prompts]
        for index in range(max(counts)):
            start = np.array([min(index, count - 1) * chunk for count in counts], np.int32)
            ids = np.zeros((len(prompts), chunk), np.int32)
            for row, prompt in enumerate(prompts):
                piece = prompt[start[row] : start[row] + chunk]
                ids[row, : len(piece)] = piece
            yield ids, start


def _host(tensor: Tensor) -> Array:
    """The values of `tensor`, once the device has computed them."""
    values: Array = tensor.asnumpy()
    return values
