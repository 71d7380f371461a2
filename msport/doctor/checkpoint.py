"""Checks whether a converted checkpoint is complete, from its headers and its manifest, without loading it."""

from __future__ import annotations

import shlex
from pathlib import Path

from msport.checkpoint import Manifest, open_checkpoint, read_manifest
from msport.checkpoint.manifest import FILE_NAME
from msport.doctor.check import Check, failed, passed
from msport.errors import MsportError, enumerate_some
from msport.sizing.units import format_size


def check_files(folder: Path) -> tuple[Check, Manifest | None]:
    """Checks that the manifest can be read and that every tensor exists as it says; also returns the manifest."""
    name = "checkpoint"
    if not folder.is_dir():
        return failed(name, f"{folder}: no such folder", "name the folder of a converted checkpoint"), None
    try:
        manifest = read_manifest(folder)
        with open_checkpoint(folder) as checkpoint:
            found = checkpoint.tensors
    except MsportError as error:
        return failed(name, str(error), _how_to_get_one(folder)), None
    wrong = [
        tensor
        for tensor, record in manifest.tensors.items()
        if tensor not in found or (found[tensor].dtype, found[tensor].shape) != (record.dtype, record.shape)
    ]
    if wrong:
        finding = f"{folder}: does not match {folder.name}/msport.json: {enumerate_some(wrong, 1)}"
        return failed(name, finding, _convert_again(manifest.source)), manifest
    nbytes = sum(tensor.nbytes for tensor in found.values())
    finding = f"{len(found)} tensors, {format_size(nbytes)}, {manifest.dtype} from {manifest.source}"
    return passed(name, finding), manifest


def _how_to_get_one(folder: Path) -> str:
    if (folder / FILE_NAME).exists():
        return _convert_again("MODEL")
    if (folder / "config.json").is_file():
        return f"it may be a model that is not converted yet: msport convert {shlex.quote(str(folder))}"
    return "name the folder of a converted checkpoint, or make one: msport convert MODEL"


def _convert_again(model: str) -> str:
    """The remedy. It names another folder, because the files in the existing one would have to be removed first."""
    return f"convert the model again, into another folder: msport convert {shlex.quote(model)} -o ANOTHER"
