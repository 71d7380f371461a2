"""The plan of a conversion: every byte of the output, placed before the first one is written.

A plan is made only from headers and ``config.json``, and is pure data: name, dtype, shape, sources, transform, file and
place in that file of each output tensor. ``--dry-run`` prints it; ``execute`` runs it, in any order and in parallel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from msport.architectures import QUANTISED, Dropped, Role
from msport.arguments import require_counts
from msport.checkpoint import DType
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOATING
from msport.convert.matching import Match, match_checkpoint
from msport.convert.packing import Quantise, Regroup
from msport.convert.shards import FORMATS, Shard, place
from msport.convert.tensors import Catalog, OutputTensor, SourceTensor
from msport.convert.transform import Transform
from msport.convert.transforms import Copy, DecodeMatrix, DecodeStack, StackTransposed
from msport.encodings import MXFP4, Encoding, Fp8Blocks, Grouped, Plain, Regroupable
from msport.errors import UsageError
from msport.sizing.units import parse_size

AUTO = "auto"
# The dtype of weights that are not packed; None: that of each tensor's own sources.
DTYPES: dict[str, DType | None] = {
    AUTO: None,
    "bfloat16": BFLOAT16,
    "float16": FLOAT16,
    "float32": FLOAT32,
    MXFP4.name: BFLOAT16,
    "int8": None,
    "int4": None,
}
_BITS = {"int8": 8, "int4": 4}
GROUP_SIZE = 32
HEADS = (AUTO, "int8")
_PLAIN = tuple(dtype.name for dtype in FLOATING)
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

    @property
    def quantised(self) -> tuple[tuple[str, int], ...]:
        """What plain matrices are quantised to, each with the number of matrices."""
        transforms = [tensor.transform for tensor in self.tensors if tensor.part == 0]
        targets = [transform.target for transform in transforms if isinstance(transform, Quantise)]
        return tuple(Counter(target.description for target in targets).items())


def make_plan(
    catalog: Catalog,
    *,
    dtype: str = AUTO,
    format: str = "safetensors",  # noqa: A002  the contract's name
    max_shard_size: int | str = MAX_SHARD_SIZE,
    group_size: int = GROUP_SIZE,
    zero_points: bool = False,
    head: str = AUTO,
) -> Plan:
    """The plan that converts the checkpoint `catalog` to `dtype` and `format`. Reads only ``config.json``.

    Floating-point tensors become `dtype`; integers are never cast. With ``auto`` each keeps its dtype (a stack gets its
    widest), MXFP4 and FP8 become bfloat16, and GPTQ, AWQ and compressed-tensors stay packed; the headers decide, not
    ``config.json``. With ``mxfp4`` packed experts stay packed and everything else becomes bfloat16. With ``int8`` and
    ``int4`` linear layers and experts are quantised in groups of `group_size` inputs, with `zero_points` or symmetric;
    embedding, head, router and norms keep their dtype, and what is packed already stays as it is. With `head` ``int8``
    the head is quantised too, or the embedding if it is the head. A shard holds at most
    `max_shard_size` bytes of tensors, or one larger tensor. If nothing in a model changes, its safetensors files on
    disk are kept.

    Raises CheckpointError that names all tensors that are missing, unexpected, or of a wrong shape or dtype;
    ConfigError; UnsupportedError; and UsageError for an unknown `dtype` or `format`.
    """
    _check_choice("dtype", dtype, DTYPES)
    _check_choice("format", format, FORMATS)
    _check_choice("head", head, HEADS)
    require_counts(group_size=group_size)
    architecture, matches, dropped = match_checkpoint(catalog)
    quantised = Grouped(_BITS[dtype], group_size, offsets=zero_points) if dtype in _BITS else None
    quantisation = {} if quantised is None else dict.fromkeys(QUANTISED, quantised)
    if head != AUTO:
        is_tied = all(found.weight.role != Role.HEAD for found in matches)
        quantisation[Role.EMBEDDING if is_tied else Role.HEAD] = Grouped(_BITS[head], group_size, offsets=zero_points)
    targets = [_target(found, dtype, quantisation.get(found.weight.role)) for found in matches]
    outputs = [
        output for found, target in zip(matches, targets, strict=True) for output in _outputs(found, target, catalog)
    ]
    if dtype == MXFP4.name and MXFP4 not in targets:
        raise UsageError(f"{catalog.folder}: holds no MXFP4 tensors to keep; choose auto, bfloat16, float16 or float32")
    tensors, shards = place(outputs, format, parse_size(max_shard_size), catalog)
    named = _most_common(matches, targets) if dtype == AUTO else dtype
    return Plan(architecture.name, named, format, tensors, shards, tuple(dropped))


def _check_choice(what: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise UsageError(f"{what} {value!r} is not known; choose one of {', '.join(choices)}")


def _target(found: Match, dtype: str, quantised: Grouped | None) -> Encoding:
    """The encoding that the weight gets. What is packed stays packed, unless a plain dtype is asked for."""
    packed = _packed(found)
    if packed is not None and dtype not in _PLAIN and (packed != MXFP4 or dtype != AUTO):
        return packed
    if quantised is not None and packed is None:
        return quantised
    return Plain(DTYPES[dtype] or _own_dtype(found.encodings))


def _packed(found: Match) -> Encoding | None:
    """The encoding in which the weight can stay packed, without a loss; None if it is not packed."""
    encodings = {each.grouped() if isinstance(each, Regroupable) else each for each in found.encodings}
    (encoding, *others) = encodings
    whole = found.form.per_expert is None or isinstance(found.encodings[0], Regroupable)
    return None if others or not whole or isinstance(encoding, Plain | Fp8Blocks) else encoding


def _outputs(found: Match, target: Encoding, catalog: Catalog) -> Iterator[OutputTensor]:
    weight, sources = found.weight, _sources(found, catalog)
    if isinstance(target, Plain):
        yield OutputTensor(weight.name, target.dtype, weight.shape, _decoding(found), sources)
    elif found.encodings == (target,):
        for source in sources:
            yield OutputTensor(source.name, source.dtype, source.shape, Copy(), (source,))
    elif isinstance(target, Grouped):
        make = Regroup if _packed(found) else Quantise
        transform = make(target, weight.matrix, _shared(found.encodings), found.form.per_expert)
        for number, part in enumerate(target.parts(weight.name, weight.matrix)):
            yield OutputTensor(part.name, part.dtype, part.shape, transform, sources, number)
    else:
        raise AssertionError(f"no way from {found.encodings[0].name} to {target.name}")


def _decoding(found: Match) -> Transform:
    """The transform that makes the plain weight."""
    if found.form.per_expert is not None:
        return StackTransposed(found.form.per_expert, _shared(found.encodings))
    (encoding,) = found.encodings
    if isinstance(encoding, Plain):
        return Copy()
    return DecodeStack(encoding) if len(found.weight.matrix) == 3 else DecodeMatrix(encoding)


def _shared(encodings: tuple[Encoding, ...]) -> tuple[Encoding, ...]:
    """One encoding for all layers if they have the same."""
    return encodings[:1] if len(set(encodings)) == 1 else encodings


def _own_dtype(encodings: Sequence[Encoding]) -> DType:
    """The narrowest floating dtype that holds every value of plain weights; bfloat16 for encoded ones."""
    found = {encoding.dtype if isinstance(encoding, Plain) else BFLOAT16 for encoding in encodings}
    return found.pop() if len(found) == 1 else FLOAT32


def _most_common(matches: Sequence[Match], targets: Sequence[Encoding]) -> str:
    """The encoding of most of the parameters."""
    elements: Counter[str] = Counter()
    for found, target in zip(matches, targets, strict=True):
        elements[target.name] += math.prod(found.weight.matrix)
    return max(elements, key=elements.__getitem__)


def _sources(found: Match, catalog: Catalog) -> tuple[SourceTensor, ...]:
    names = (part.name for parts in found.parts for part in parts)
    return tuple(_source(name, catalog) for name in names)


def _source(name: str, catalog: Catalog) -> SourceTensor:
    tensor = catalog.tensors[name]
    return SourceTensor(name, tensor.dtype, tensor.shape, catalog.files[name].name)
