"""What the reference computed for every prompt, kept on disk.

Logits are too large to stand in memory, and the two sides never run at the same time. A recording is a safetensors file
with ``logits.I`` ``[tokens, vocab]`` and ``hidden_states.I`` ``[layers + 1, tokens, hidden]``, both float32, for prompt
number I.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.architectures import ModelConfig
from msport.checkpoint import ShardWriter, TensorFile, safetensors
from msport.checkpoint.dtypes import FLOAT32
from msport.errors import OutputError
from msport.validate.prompts import Prompt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Outputs at n tokens from `start` on: `logits` ``[n, vocab]``, `hidden_states` ``[layers + 1, n, hidden]``."""

    start: int
    logits: Floats
    hidden_states: Floats


class RecordingWriter:
    """Writes a recording whose size is known beforehand; a context manager, as `ShardWriter`.

    Raises `OutputError` where the disk has no room for it.
    """

    def __init__(self, path: Path, prompts: Sequence[Prompt], config: ModelConfig) -> None:
        states = (config.num_hidden_layers + 1, config.hidden_size)
        tensors: list[tuple[str, Any, tuple[int, ...]]] = []
        for number, prompt in enumerate(prompts):
            tensors.append((_logits(number), FLOAT32, (len(prompt.ids), config.vocab_size)))
            tensors.append((_hidden_states(number), FLOAT32, (states[0], len(prompt.ids), states[1])))
        layout = safetensors.plan_layout(tensors)
        with _reporting_a_full_disk(path, layout.file_size):
            self._writer = ShardWriter(path, layout)

    def add(self, number: int, chunk: Chunk) -> None:
        """Stores `chunk` of prompt `number`."""
        self._writer.write(_logits(number), chunk.start * chunk.logits[0].nbytes, np.ascontiguousarray(chunk.logits))
        name = _hidden_states(number)
        tokens = self._writer.layout.tensors[name].shape[1]
        for layer, states in enumerate(chunk.hidden_states):
            offset = (layer * tokens + chunk.start) * states[0].nbytes
            self._writer.write(name, offset, np.ascontiguousarray(states))

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)


class Recording:
    """A recording open for reading; a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = TensorFile(path)

    def logits(self, number: int, begin: int, end: int) -> Floats:
        """The logits of prompt `number` at tokens ``[begin, end)``, ``[end - begin, vocab]``."""
        return self._file.read(_logits(number), begin, end)

    def hidden_states(self, number: int, layer: int) -> Floats:
        """The residual stream of prompt `number` after `layer` layers (0: the embedding), ``[tokens, hidden]``."""
        states: Floats = self._file.read(_hidden_states(number), layer, layer + 1)[0]
        return states

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _logits(number: int) -> str:
    return f"logits.{number}"


def _hidden_states(number: int) -> str:
    return f"hidden_states.{number}"


@contextmanager
def _reporting_a_full_disk(path: Path, nbytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OutputError(
            f"{path.parent}: no room for {nbytes / 1e9:.1f} GB of reference logits;"
            " set TMPDIR to a folder on a larger disk, or lower --max-length"
        ) from None
