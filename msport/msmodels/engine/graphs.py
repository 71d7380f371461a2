"""Runs prompts of any length through graphs of fixed shape.

There are three graphs, each compiled at first use: a chunk of the prompt with the logits of one row per sequence, the
same chunk with all its logits (scoring), and one token per sequence. No input compiles a fourth graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from mindspore import Tensor

from msport.checkpoint.dtypes import Array
from msport.errors import UsageError
from msport.msmodels import ops
from msport.msmodels.engine.compiler import Compiled, compile_graph
from msport.msmodels.engine.turns import TURN, Sequences
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM


class Graphs:
    """A network, its caches, and the position of each of the ``cache.batch`` sequences in them.

    The graphs use `operators`, independent of other models in the process. A thread waits while another one runs a
    graph. `compiled` holds the result of each compilation by the graph's name.
    """

    def __init__(self, network: CausalLM, cache: CacheShape, operators: str) -> None:
        self.network = network
        self.cache = cache
        self.operators = operators
        self.lengths = np.zeros(cache.batch, np.int32)
        self.compiled: dict[str, Compiled] = {}
        self.sequences: Sequences | None = None

    def begin(self, caller: str, count: int) -> Sequences:
        """Gives the caches to `count` new sequences. Every earlier `Sequences` becomes stale."""
        with TURN:
            self.sequences = Sequences(caller, count)
            self.lengths = np.zeros(self.cache.batch, np.int32)
            return self.sequences

    def compile(self) -> None:
        """Compiles the graphs of `prefill` and `decode`, if not yet done."""
        batch, chunk = self.cache.batch, self.cache.chunk
        one_each = np.zeros(batch)
        for name, width in (("prefill", chunk), ("decode", 1)):
            self._compile(name, np.zeros((batch, width)), one_each, one_each)

    def prefill(self, prompts: Sequence[Array], sequences: Sequences) -> Array:
        """Starts one sequence per prompt; float32 logits after the last token of each, ``[batch, vocab]``."""
        with TURN:
            self._check(sequences)
            for ids, start in self._chunks(prompts):
                last = np.array([len(prompt) for prompt in prompts]) - 1 - start
                rows = np.arange(self.cache.batch) * self.cache.chunk + np.clip(last, 0, self.cache.chunk - 1)
                logits = self._run("prefill", ids, start, rows)
            self.lengths = np.array([len(prompt) for prompt in prompts], np.int32)
            return _host(logits)

    def decode(self, tokens: Array, sequences: Sequences) -> Array:
        """Appends ``tokens [batch]`` to the sequences; float32 logits after them, ``[batch, vocab]``."""
        with TURN:
            self._check(sequences)
            if int(self.lengths.max()) >= self.cache.max_length:
                raise UsageError(
                    f"the context is full: max_length is {self.cache.max_length}; load the model with a larger one"
                )
            rows = np.arange(self.cache.batch)
            logits = self._run("decode", tokens.reshape(-1, 1), self.lengths, rows)
            self.lengths = self.lengths + 1
            return _host(logits)

    def score(self, prompts: Sequence[Array], sequences: Sequences) -> Iterator[Array]:
        """Float32 logits of every token, one chunk at a time: ``[batch, chunk, vocab]``, including padding at the
        end.
        """
        rows = np.arange(self.cache.batch * self.cache.chunk)
        for ids, start in self._chunks(prompts):
            with TURN:
                self._check(sequences)
                logits = _host(self._run("score", ids, start, rows))
            yield logits.reshape(self.cache.batch, self.cache.chunk, -1)

    def _check(self, sequences: Sequences) -> None:
        """Raises `UsageError` if `sequences` are no longer in the caches."""
        if self.sequences is not sequences and self.sequences is not None:
            raise UsageError(
                f"{sequences.caller} cannot go on: {self.sequences.caller} has overwritten its caches, which hold the"
                " sequences of one call at a time; finish one before the other begins, or load a second model"
            )

    def _run(self, name: str, *inputs: Array) -> Tensor:
        """Float32 logits of the graph `name` for ids, starts and rows; the device may still be computing them."""
        self._compile(name, *inputs)
        return self.compiled[name].run(_tensors(inputs))

    def _compile(self, name: str, *inputs: Array) -> None:
        with TURN:
            if name in self.compiled:
                return
            ops.use(self.operators, self.cache.dtype)
            self.compiled[name] = compile_graph(self.network, _tensors(inputs), self.operators)

    def _chunks(self, prompts: Sequence[Array]) -> Iterator[tuple[Array, Array]]:
        """Pairs of ids ``[batch, chunk]``, padded at the end, and the position each row starts at, ``[batch]``.

        A prompt shorter than the others repeats its last chunk until they end. This writes the same values to the
        caches again.
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


def _tensors(inputs: Sequence[Array]) -> list[Tensor]:
    return [Tensor(array.astype(np.int32)) for array in inputs]


def _host(tensor: Tensor) -> Array:
    """The values of `tensor` in host memory, after the device has computed them."""
    values: Array = tensor.asnumpy()
    return values
