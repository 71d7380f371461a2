"""The interface of a loaded model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from msport.architectures import ModelConfig
from msport.arguments import checked
from msport.checkpoint.dtypes import Array
from msport.errors import UsageError
from msport.msmodels.engine import TURN, Graphs, Sequences
from msport.msmodels.prompts import Prompts, as_array, checked_ids, equally_long, read_prompts
from msport.msmodels.sampling import Sampler, SamplingConfig
from msport.msmodels.tokenizer import Tokenizer, load_tokenizer
from msport.progress import Phases
from msport.sizing.costs import Costs
from msport.sizing.kept import Encodings

_NONE_KEPT: Encodings = {}


class LanguageModel:
    """A model in graph mode with its weights in place; made by `load_model`.

    `max_length` bounds prompt and generation together, in tokens. `batch_size` sequences run at a time; larger batches
    run in groups. The caches hold the sequences of one call at a time: a call that would continue from overwritten
    caches raises `UsageError`. Threads may share a model; they take turns.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        graphs: Graphs,
        *,
        stop_ids: frozenset[int],
        dtype: str,
        device: str,
        kept: Encodings = _NONE_KEPT,
    ) -> None:
        self.folder = folder
        self.config = config
        self.stop_ids = stop_ids
        self.dtype = dtype
        self.device = device
        self.graphs = graphs
        self.kept = kept
        self.costs = Costs(config, dtype, kept)
        self._prefilled: Sequences | None = None

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of the folder, or None if there is none; read at first use."""
        return load_tokenizer(self.folder)

    @property
    def max_length(self) -> int:
        """Tokens of prompt and generation together that the caches hold."""
        return self.graphs.cache.max_length

    @property
    def operators(self) -> str:
        """The operators of the graphs: ``portable``, ``cpu`` or ``ascend``."""
        return self.graphs.operators

    @property
    def batch_size(self) -> int:
        """Number of sequences that run together."""
        return self.graphs.cache.batch

    @property
    def prefill_chunk(self) -> int:
        """Number of tokens of a prompt that run together."""
        return self.graphs.cache.chunk

    def logits(self, ids: Prompts) -> Array:
        """Next-token logits at every position: int ``[batch, seq]`` to float32 ``[batch, seq, vocab]``.

        Raises `UsageError` if a prompt is empty, longer than `max_length`, or holds an id outside the vocabulary.
        """
        prompts = equally_long(self._prompts(ids))
        with TURN:
            groups = [
                np.concatenate([piece for _, piece in self.iter_logits(group)], axis=1)
                for group in self._groups(prompts)
            ]
        return np.concatenate(groups)

    def iter_logits(self, ids: Prompts) -> Iterator[tuple[int, Array]]:
        """`logits` of at most `batch_size` prompts, one chunk at a time, so that a long prompt needs little memory.

        Yields the position of the first token of a chunk, and float32 ``[batch, n, vocab]``.
        """
        prompts = equally_long(self._prompts(ids))
        self._check_batch(prompts)
        seq = len(prompts[0])
        sequences = self.graphs.begin("logits", len(prompts))
        for index, logits in enumerate(self.graphs.score(self._padded(prompts), sequences)):
            start = index * self.prefill_chunk
            yield start, logits[: len(prompts), : seq - start]

    def prefill(self, ids: Prompts) -> Array:
        """Starts a sequence per prompt; the prompts, at most `batch_size`, may differ in length.

        Returns the float32 logits after the last token of each, ``[batch, vocab]``. The sequences last until another
        call begins its own: `prefill`, `logits`, or the first step of `generate`.
        """
        prompts = self._prompts(ids)
        self._check_batch(prompts)
        with TURN:
            self._prefilled = None  # until all prompts are in the caches
            sequences = self.graphs.begin("prefill", len(prompts))
            logits = self._start(prompts, sequences)
            self._prefilled = sequences
            return logits

    def decode(self, tokens: Sequence[int] | Array) -> Array:
        """Appends one token to each sequence of the last `prefill`; returns the float32 logits after it, ``[batch,
        vocab]``.

        Raises `UsageError` if the number of tokens is not that of the sequences, if the context is full, or if another
        call has overwritten the caches.
        """
        with TURN:
            if self._prefilled is None:
                raise UsageError("decode continues the sequences that prefill started; call prefill first")
            return self._continue(as_array(tokens).reshape(-1), self._prefilled)

    def _start(self, prompts: list[Array], sequences: Sequences) -> Array:
        return self.graphs.prefill(self._padded(prompts), sequences)[: len(prompts)]

    def _continue(self, tokens: Array, sequences: Sequences) -> Array:
        row = checked_ids(tokens, self.config.vocab_size)
        if len(row) != sequences.count:
            raise UsageError(f"decode takes one token for each sequence: {sequences.count} here, not {len(row)}")
        padded = np.concatenate([row, np.repeat(row[:1], self.batch_size - len(row))])
        return self.graphs.decode(padded, sequences)[: len(row)]

    def warm_up(self, phases: Phases | None = None) -> None:
        """Compiles the graphs of `generate`, which otherwise compiles them itself. `phases` reports and times it as
        "compiling".
        """
        with (phases or Phases()).phase("compiling"):
            self.graphs.compile()

    @checked
    def generate(
        self,
        ids: Prompts,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Iterator[int]:
        """Yields the tokens that follow one prompt, ``[seq]`` or ``[1, seq]``.

        `temperature` 0 is greedy. The generation ends after a stop id (which is yielded too), after `max_new_tokens`,
        or when prompt and tokens together reach `max_length`.
        """
        prompt = self._prompts(ids)
        if len(prompt) != 1:
            raise UsageError(f"generate takes one prompt, not {len(prompt)}")
        sampler = Sampler(SamplingConfig(temperature=temperature, top_p=top_p), seed)
        return self._generate(prompt, max_new_tokens, sampler)

    def _generate(self, prompt: list[Array], max_new_tokens: int, sampler: Sampler) -> Iterator[int]:
        count = min(max_new_tokens, self.max_length - len(prompt[0]))
        if count <= 0:
            return
        if count > 1:
            self.warm_up()  # otherwise the second token would wait for a compilation
        sequences = self.graphs.begin("generate", 1)
        logits = self._start(prompt, sequences)
        for remaining in range(count - 1, -1, -1):
            token = int(sampler.choose(logits)[0])
            yield token
            if token in self.stop_ids or remaining == 0:
                return
            logits = self._continue(np.array([token]), sequences)

    def _prompts(self, ids: Prompts) -> list[Array]:
        return read_prompts(ids, self.config.vocab_size, self.max_length)

    def _check_batch(self, prompts: list[Array]) -> None:
        if len(prompts) > self.batch_size:
            raise UsageError(f"{len(prompts)} prompts, but the model was loaded with batch_size={self.batch_size}")

    def _groups(self, prompts: list[Array]) -> Iterator[list[Array]]:
        for begin in range(0, len(prompts), self.batch_size):
            yield prompts[begin : begin + self.batch_size]

    def _padded(self, prompts: list[Array]) -> list[Array]:
        """Exactly `batch_size` prompts; the first one is repeated, because the graph has a fixed batch size."""
        return prompts + prompts[:1] * (self.batch_size - len(prompts))
