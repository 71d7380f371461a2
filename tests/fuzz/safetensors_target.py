"""``safetensors.read_header`` beside the ``safetensors`` library: both accept a file, or the difference is stated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoint.attacks.safetensors_files import ATTACKS, GOOD, entry, file_of
from safetensors import SafetensorError, deserialize

from fuzz import lenient_json
from fuzz.lenient_json import Pairs, names
from fuzz.messages import assert_fit_for_a_line
from msport.checkpoint import safetensors
from msport.checkpoint.dtypes import by_safetensors
from msport.checkpoint.layout import Header
from msport.errors import CheckpointError

WORDS = [
    b'"dtype":"',
    b'"shape":[',
    b'"data_offsets":[',
    b'"__metadata__":{',
    b"F32",
    b"BF16",
    b"F8_E4M3",
    b"C64",
    b"I64",
]
WORDS += [b"U8", b"BOOL", b"18446744073709551615", b"9223372036854775808", b"\\u0077", b'{"w":', b"]},", b"null", b"0,"]

# What the library takes as a dtype and msport does not know.
FOREIGN_DTYPES = {"C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
MOST_AXES = 32
MOST_BYTES = 2**63 - 1


def seeds() -> list[bytes]:
    tensors = {"a": entry([2, 3], 0, 12, "BF16"), "b": entry([], 12, 20, "I64"), "e": entry([0, 7], 20, 20)}
    whole = file_of({"__metadata__": {"format": "pt"}, **tensors}, bytes(20), padding=b"  ")
    attacks = [attack.content for attack in ATTACKS.values()]
    return [GOOD, whole, *(content for content in attacks if len(content) < 2000)]


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    tensors = read_by_library(content)
    differences = set(stated_differences(content))
    try:
        header = safetensors.read_header(path)
    except CheckpointError as error:
        assert_fit_for_a_line(str(error))
        if tensors is not None and not differences:
            raise AssertionError("only msport refuses it") from error
        return
    assert tensors is not None, "only msport accepts it"
    assert not differences
    assert described(header, content) == tensors


def read_by_library(content: bytes) -> dict[str, tuple[str, list[int], bytes]] | None:
    """Name to dtype, shape and bytes; None if the library refuses the file."""
    try:
        tensors = deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError:
        return None
    return {name: (tensor["dtype"], tensor["shape"], bytes(tensor["data"])) for name, tensor in tensors}


def described(header: Header, content: bytes) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        name: (tensor.dtype.safetensors, list(tensor.shape), content[slice(*tensor.extents[0])])
        for name, tensor in header.tensors.items()
    }


def stated_differences(content: bytes) -> Iterator[str]:
    """Why msport refuses a file that the library accepts: the list in ``docs/checkpoint-formats.md``."""
    text = content[8 : 8 + int.from_bytes(content[:8], "little")]
    if not text.startswith(b"{") or not text.rstrip(b" ").endswith(b"}"):
        yield "white space before the header, or other than spaces behind it"
    try:
        document = lenient_json.parse(text.decode())
    except (ValueError, RecursionError):
        return
    if not isinstance(document, Pairs):
        return
    if lenient_json.is_repeated(document):
        yield "a repeated name"
    for name, value in document:
        yield from metadata_differences(value) if name == "__metadata__" else entry_differences(value)


def metadata_differences(value: Any) -> Iterator[str]:
    if value is None:
        yield "metadata that is null"
    elif lenient_json.is_repeated(value):
        yield "a repeated name"


def entry_differences(value: Any) -> Iterator[str]:
    if not isinstance(value, Pairs):
        yield "an entry written as an array"
        return
    if set(names(value)) - {"dtype", "shape", "data_offsets"}:
        yield "an entry with further keys"
    fields = dict(value)
    dtype, shape = fields.get("dtype"), fields.get("shape")
    if isinstance(dtype, Pairs):
        yield "a dtype written as an object"
    elif isinstance(dtype, str) and dtype in FOREIGN_DTYPES:
        yield "a dtype that msport does not know"
    known = by_safetensors(dtype) if isinstance(dtype, str) else None
    if known and isinstance(shape, list) and all(isinstance(size, lenient_json.Digits) for size in shape):
        yield from shape_differences([int(size) for size in shape if len(size) <= 20], known.itemsize)


def shape_differences(shape: list[int], itemsize: int) -> Iterator[str]:
    if len(shape) > MOST_AXES:
        yield "more axes than NumPy has"
    extent = 1
    for size in shape:
        extent *= abs(size) or 1
    if 0 in shape and itemsize * extent > MOST_BYTES:
        yield "an empty tensor whose other axes are beyond 2**63 bytes"
