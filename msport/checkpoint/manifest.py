"""``msport.json``: what a converted folder holds, where it came from, and the hash of every tensor."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msport.checkpoint import strict_json
from msport.checkpoint.atomic import write_atomically
from msport.checkpoint.dtypes import DType, by_name
from msport.checkpoint.index import is_plain_name
from msport.checkpoint.layout import Extent, TensorInfo
from msport.errors import CheckpointError, quote

FILE_NAME = "msport.json"
SCHEMA = 1
CHECKS = ("sha256", "git", "length", "no-hash")


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One output tensor.

    ``file`` is a name in the folder, ``extents`` are absolute byte ranges in that file, and ``sha256`` is their hash in
    hex.
    """

    dtype: DType
    shape: tuple[int, ...]
    file: str
    extents: tuple[Extent, ...]
    sha256: str

    def info(self, name: str) -> TensorInfo:
        """This record as the TensorInfo of a reader."""
        return TensorInfo(name, self.dtype, self.shape, self.extents)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A finished conversion.

    ``source`` is a Hub id or a folder; ``dtype`` and ``format`` are the options of the conversion. ``fetched`` says how
    each file from a Hub was compared with what the Hub states: by its ``sha256``, as a ``git`` blob, or only by
    ``length`` and ETag if its bytes were not read in order. ``no-hash``: the Hub states no hash.
    """

    source: str
    revision: str | None
    source_format: str
    msport_version: str
    dtype: str
    format: str
    tensors: Mapping[str, TensorRecord]
    fetched: Mapping[str, str] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """The JSON document; ``from_document`` is the inverse."""
        return {
            "schema": SCHEMA,
            "source": self.source,
            "revision": self.revision,
            "source_format": self.source_format,
            "msport_version": self.msport_version,
            "dtype": self.dtype,
            "format": self.format,
            "fetched": dict(self.fetched),
            "tensors": {name: _record_document(record) for name, record in self.tensors.items()},
        }

    @classmethod
    def from_document(cls, document: Any) -> Manifest:
        """Check a parsed ``msport.json`` completely; ValueError says what is wrong with it."""
        if isinstance(document, dict):
            document = {"fetched": {}, **document}  # the first manifests did not have it
        fields = _fields(document, "the manifest", _MANIFEST_TYPES)
        if fields["schema"] != SCHEMA:
            raise ValueError(f"schema {fields['schema']} is not {SCHEMA}, which this version of msport reads")
        del fields["schema"]
        if not all(kind in CHECKS for kind in fields["fetched"].values()):
            raise ValueError(f"fetched: {quote(fields['fetched'])} are not each one of {', '.join(CHECKS)}")
        fields["tensors"] = {name: _record(name, entry) for name, entry in fields["tensors"].items()}
        return cls(**fields)


_MANIFEST_TYPES: dict[str, tuple[type, ...]] = {
    "schema": (int,),
    "source": (str,),
    "revision": (str, type(None)),
    "source_format": (str,),
    "msport_version": (str,),
    "dtype": (str,),
    "format": (str,),
    "fetched": (dict,),
    "tensors": (dict,),
}
_RECORD_TYPES: dict[str, tuple[type, ...]] = {
    "dtype": (str,),
    "shape": (list,),
    "file": (str,),
    "extents": (list,),
    "sha256": (str,),
}


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read and check ``msport.json`` of a converted folder; CheckpointError names the file and the remedy."""
    path = Path(folder) / FILE_NAME
    try:
        return Manifest.from_document(strict_json.load(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; not a finished msport conversion, run msport convert") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}; convert the model again") from error


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Write ``msport.json`` atomically. It is written last, so it marks the folder as finished."""
    text = json.dumps(manifest.to_document(), indent=1, ensure_ascii=False) + "\n"
    # The source may be a folder whose name is not UTF-8. The finished conversion must not fail for this.
    write_atomically(Path(folder) / FILE_NAME, text.encode("utf-8", errors="replace"))


def checkpoint_hash(manifest: Manifest) -> str:
    """One SHA-256 for a converted checkpoint, over the names and hashes of its tensors in sorted order."""
    lines = (f"{name} {manifest.tensors[name].sha256}\n" for name in sorted(manifest.tensors))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _record_document(record: TensorRecord) -> dict[str, Any]:
    return {
        "dtype": record.dtype.name,
        "shape": list(record.shape),
        "file": record.file,
        "extents": [list(extent) for extent in record.extents],
        "sha256": record.sha256,
    }


def _record(name: str, entry: Any) -> TensorRecord:
    fields = _fields(entry, f"tensor {quote(name)}", _RECORD_TYPES)
    if not is_plain_name(fields["file"]):
        raise ValueError(f"tensor {quote(name)}: {quote(fields['file'])} is not a plain file name")
    if not re.fullmatch("[0-9a-f]{64}", fields["sha256"]):
        raise ValueError(f"tensor {quote(name)}: sha256 is not 64 hexadecimal digits")
    record = TensorRecord(
        dtype=_dtype(name, fields["dtype"]),
        shape=_naturals(name, fields["shape"]),
        file=fields["file"],
        extents=tuple(_extent(name, values) for values in fields["extents"]),
        sha256=fields["sha256"],
    )
    if record.info(name).nbytes != sum(end - begin for begin, end in record.extents):
        raise ValueError(f"tensor {quote(name)}: its extents do not add up to its shape")
    return record


def _dtype(name: str, value: str) -> DType:
    try:
        return by_name(value)
    except CheckpointError as error:
        raise ValueError(f"tensor {quote(name)}: {error}") from error


def _extent(name: str, values: Any) -> Extent:
    numbers = _naturals(name, values)
    if len(numbers) != 2 or numbers[0] > numbers[1]:
        raise ValueError(f"tensor {quote(name)}: extents are not pairs of begin and end")
    return numbers[0], numbers[1]


def _naturals(name: str, values: Any) -> tuple[int, ...]:
    numbers = strict_json.naturals(values)
    if numbers is None:
        raise ValueError(f"tensor {quote(name)}: {quote(values)} is not a list of non-negative integers")
    return numbers


def _fields(document: Any, what: str, types: dict[str, tuple[type, ...]]) -> dict[str, Any]:
    if not isinstance(document, dict) or document.keys() != types.keys():
        raise ValueError(f"{what} is not exactly {', '.join(types)}")
    for key, allowed in types.items():
        if type(document[key]) not in allowed:
            raise ValueError(f"{what}: {key} is of type {type(document[key]).__name__}")
    return dict(document)
