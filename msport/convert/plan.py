"""The plan of a conversion: every byte of the output, placed before the first one is written.

A plan is made only from headers and ``config.json``, and is pure data: name, dtype, shape, sources, transform, file and
place in that file of each output tensor. ``--dry-run`` prints it; ``execute`` runs it, in any order and in parallel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msport.architectures import Dropped
from msport.checkpoint import DType
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.convert.matching import Match, match_checkpoint
from msport.convert.shards import FORMATS, Shard, place
from msport.convert.tensors import Catalog, OutputTensor, SourceTensor
from msport.convert.transform import Transform
from msport.convert.transforms import Copy, DecodeMatrix, DecodeStack, StackTransposed
from msport.encodings import Encoding, Plain
from msport.errors import UsageError
from msport.sizing.units import parse_size

AUTO = "auto"
# None: the dtype of each tensor's own sources. MXFP4 packs the experts; everything else in such a model is bfloat16.
DTYPES: dict[str, DType | None] = {
    AUTO: None,
    "bfloat16": BFLOAT16,
    "float16": FLOAT16,
    "float32": FLOAT32,
    "mxfp4": BFLOAT16,
}
_PLAIN = ("bfloat16", "float16", "float32")
MAX_SHARD_SIZE = "5GB"


@dataclass(frozen=True, slots=True)
class Rounded:
    """The number of tensors that are rounded from one dtype to another."""

    source: str
    target: str
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole conversion: `tensors` in their order in `shards`, and the sources that are dropped on purpose.

    `dtype` is the requested one; for ``auto``, that of most parameters.
    """

    architecture: str
    dtype: str
    format: str
    tensors: tuple[OutputTensor, ...]
    shards: tuple[Shard, ...]
    dropped: tuple[Dropped, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def file_nbytes(self) -> int:
        """Bytes of all shards, headers included."""
        return sum(shard.layout.file_size for shard in self.shards)

    @property
    def rounded(self) -> tuple[Rounded, ...]:
        """The tensors that may be rounded, counted by dtypes."""
        pairs = Counter((each.rounded_from, each.dtype.name) for each in self.tensors if each.rounded_from)
        return tuple(Rounded(*names, count) for names, count in pairs.items())


def make_plan(
    catalog: Catalog,
    *,
    dtype: str = AUTO,
    format: str = "safetensors",  # noqa: A002  the contract's name
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> Plan:
    """The plan that converts the checkpoint `catalog` to `dtype` and `format`. Reads only ``config.json``.

    Floating-point tensors become `dtype`; integers are never cast. With ``auto`` each keeps its dtype (a stack gets its
    widest), and MXFP4 and FP8 become bfloat16; the headers decide, not ``config.json``. With ``mxfp4`` packed experts
    stay packed and everything else becomes bfloat16. A shard holds at most `max_shard_size` bytes of tensors, or one
    larger tensor. If nothing in a model changes, its safetensors files on disk are kept.

    Raises CheckpointError that names all tensors that are missing, unexpected, or of a wrong shape or dtype;
    ConfigError; UnsupportedError; and UsageError for an unknown `dtype` or `format`.
    """
    _check_choice("dtype", dtype, DTYPES)
    _check_choice("format", format, FORMATS)
    architecture, matches, dropped = match_checkpoint(catalog)
    outputs = [output for found in matches for output in _outputs(found, dtype, catalog)]
    if dtype not in (AUTO, *_PLAIN) and not any(_is_kept(found, dtype) for found in matches):
        raise UsageError(f"{catalog.folder}: holds no MXFP4 tensors to keep; choose auto, bfloat16, float16 or float32")
    tensors, shards = place(outputs, format, parse_size(max_shard_size), catalog)
    named = _most_common(tensors) if dtype == AUTO else dtype
    return Plan(architecture.name, named, format, tensors, shards, tuple(dropped))


def _check_choice(what: str, value: str, choices: Mapping[str, Any]) -> None:
    if value not in choices:
        raise UsageError(f"{what} {value!r} is not known; choose one of {', '.join(choices)}")


def _outputs(found: Match, dtype: str, catalog: Catalog) -> Iterator[OutputTensor]:
    weight = found.weight
    if _is_kept(found, dtype):
        for source in _sources(found, catalog):
            yield OutputTensor(source.name, source.dtype, source.shape, Copy(), (source,))
    else:
        target = DTYPES[dtype] or _own_dtype(found.encodings)
        yield OutputTensor(weight.name, target, weight.shape, _decoding(found), _sources(found, catalog))


def _is_kept(found: Match, dtype: str) -> bool:
    """Whether the weight stays in its encoding, of the name `dtype`."""
    return found.form.per_expert is None and found.encodings[0].name == dtype and dtype not in _PLAIN


def _decoding(found: Match) -> Transform:
    """The transform that makes the plain weight."""
    if found.form.per_expert is not None:
        return StackTransposed(found.form.per_expert, found.encodings)
    (encoding,) = found.encodings
    if isinstance(encoding, Plain):
        return Copy()
    return DecodeStack(encoding) if len(found.weight.matrix) == 3 else DecodeMatrix(encoding)


def _own_dtype(encodings: Sequence[Encoding]) -> DType:
    """The narrowest floating dtype that holds every value of plain weights; bfloat16 for encoded ones."""
    found = {encoding.dtype if isinstance(encoding, Plain) else BFLOAT16 for encoding in encodings}
    return found.pop() if len(found) == 1 else FLOAT32


def _most_common(tensors: Sequence[OutputTensor]) -> str:
    """The dtype of most of the parameters."""
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype.name] += math.prod(tensor.shape)
    return max(elements, key=elements.__getitem__)


def _sources(found: Match, catalog: Catalog) -> tuple[SourceTensor, ...]:
    names = (part.name for parts in found.parts for part in parts)
    return tuple(_source(name, catalog) for name in names)


def _source(name: str, catalog: Catalog) -> SourceTensor:
    tensor = catalog.tensors[name]
    return SourceTensor(name, tensor.dtype, tensor.shape, catalog.files[name].name)
