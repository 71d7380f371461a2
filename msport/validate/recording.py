"""The results of the reference for every prompt, kept on disk.

Logits are too large for memory, and the two sides never run at the same time. A recording is a folder of safetensors
files, one for all logits and one per layer, or the same packed into one file of golden values for machines without
torch. Tensors, float32 unless stated, for prompt number I: ``logits.I`` ``[tokens, vocab]``, ``embed_tokens.I`` and
``norm.I`` ``[tokens, hidden]``, ``layers.L.OPERATION.I`` ``[tokens, features]`` (``chosen experts``: int32).
``reference.noise`` describes those of the noise.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from msport.checkpoint import ShardWriter, TensorFile, safetensors
from msport.checkpoint.dtypes import FLOAT32, INT32, DType
from msport.errors import OutputError
from msport.sizing.units import format_size
from msport.validate.operations import EMBEDDING, OUTPUT
from msport.validate.prompts import Prompt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

_LOGITS_FILE = "logits.safetensors"
_COPY_BYTES = 1 << 24


class RecordingWriter:
    """Writes a recording into the empty `folder`; a context manager, as `ShardWriter`.

    Raises `OutputError` if the disk has no room for the logits.
    """

    def __init__(self, folder: Path, prompts: Sequence[Prompt], vocab_size: int) -> None:
        self._folder = folder
        shapes = [(logits_name(number), FLOAT32, (len(p.ids), vocab_size)) for number, p in enumerate(prompts)]
        layout = safetensors.plan_layout(shapes)
        with _reporting_a_full_disk(folder, layout.file_size):
            self._logits = ShardWriter(folder / _LOGITS_FILE, layout)

    def add_logits(self, number: int, start: int, logits: Floats) -> None:
        """Stores the logits ``[n, vocab]`` of prompt `number` from token `start` on."""
        self._logits.write(logits_name(number), start * logits[0].nbytes, np.ascontiguousarray(logits))

    def add(self, part: str, tensors: Mapping[str, Array]) -> None:
        """Stores `tensors` in a separate file, named after `part`."""
        layout = safetensors.plan_layout((name, _dtype(array), array.shape) for name, array in tensors.items())
        path = self._folder / f"{part}.safetensors"
        with _reporting_a_full_disk(self._folder, layout.file_size), ShardWriter(path, layout) as writer:
            for name, array in tensors.items():
                writer.write(name, 0, np.ascontiguousarray(array))

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._logits.__exit__(kind, error, trace)


class Recording:
    """A recording open for reading, a folder or a packed file; a context manager."""

    def __init__(self, path: Path) -> None:
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        self.files = [TensorFile(file) for file in files]
        self._homes = {name: file for file in self.files for name in file.header.tensors}

    def __contains__(self, name: str) -> bool:
        return name in self._homes

    def read(self, name: str, begin: int = 0, end: int | None = None) -> Array:
        """Rows ``[begin, end)`` of tensor `name`."""
        return self._homes[name].read(name, begin, end)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of tensor `name`."""
        return self._homes[name].header.tensors[name].shape

    def logits(self, number: int, begin: int, end: int) -> Floats:
        """The logits of prompt `number` at tokens ``[begin, end)``, ``[end - begin, vocab]``."""
        return self.read(logits_name(number), begin, end)

    def hidden_states(self, number: int, layer: int) -> Floats:
        """The residual stream of prompt `number` after `layer` layers (0: the embedding), ``[tokens, hidden]``."""
        return self.read(f"{EMBEDDING}.{number}" if layer == 0 else layer_name(layer - 1, OUTPUT, number))

    def features(self, layer: int, number: int = 0) -> dict[str, int]:
        """The recorded operations of `layer` for prompt `number`, each with its number of features."""
        prefix, suffix = f"layers.{layer}.", f".{number}"
        names = [n for n in self._homes if n.startswith(prefix) and n.endswith(suffix)]
        return {name[len(prefix) : -len(suffix)]: self.shape(name)[1] for name in names}

    def has_operation(self, operation: str) -> bool:
        """Whether any layer has this operation."""
        return any(f".{operation}." in name for name in self._homes)

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self.files:
            file.close()


def pack(recording: Recording, path: Path, metadata: Mapping[str, str]) -> None:
    """Copies every tensor of `recording` into the one file `path`, which must not exist, under `metadata`."""
    infos = [(file, info) for file in recording.files for info in file.header.tensors.values()]
    layout = safetensors.plan_layout(((info.name, info.dtype, info.shape) for _, info in infos), metadata)
    with _reporting_a_full_disk(path.parent, layout.file_size), ShardWriter(path, layout) as writer:
        for file, info in infos:
            for offset in range(0, info.nbytes, _COPY_BYTES):
                piece = np.empty(min(_COPY_BYTES, info.nbytes - offset), np.uint8)
                file.read_into(info.name, offset, piece)
                writer.write(info.name, offset, piece)


def logits_name(number: int) -> str:
    """The tensor name of the logits of prompt `number`."""
    return f"logits.{number}"


def layer_name(layer: int, operation: str, number: int) -> str:
    """The tensor name of the output of `operation` of `layer` for prompt `number`."""
    return f"layers.{layer}.{operation}.{number}"


def _dtype(array: Array) -> DType:
    return INT32 if array.dtype == np.int32 else FLOAT32


@contextmanager
def _reporting_a_full_disk(folder: Path, nbytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OutputError(
            f"{folder}: no room for {format_size(nbytes)} of reference values;"
            " set TMPDIR to a folder on a larger disk, or lower --max-length"
        ) from None
