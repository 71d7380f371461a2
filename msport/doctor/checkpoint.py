"""A converted checkpoint: is it whole? From its headers and its manifest, without loading."""

from __future__ import annotations

from pathlib import Path

from msport.checkpoint import Manifest, open_checkpoint, read_manifest
from msport.convert import format_size
from msport.doctor.check import Check, failed, passed
from msport.errors import MsportError


def check_files(folder: Path) -> tuple[Check, Manifest | None]:
    """Whether the manifest can be read and every tensor that it names is there, as it says; and the manifest."""
    name = "checkpoint"
    if not folder.is_dir():
        return failed(name, f"{folder}: no such folder", "name the folder of a converted checkpoint"), None
    try:
        manifest = read_manifest(folder)
        with open_checkpoint(folder) as checkpoint:
            found = checkpoint.tensors
    except MsportError as error:
        return failed(name, str(error), f"convert the model again: msport convert MODEL -o {folder}"), None
    wrong = [
        tensor
        for tensor, record in manifest.tensors.items()
        if tensor not in found or (found[tensor].dtype, found[tensor].shape) != (record.dtype, record.shape)
    ]
    if wrong:
        finding = f"{folder}: {wrong[0]} is not what {folder.name}/msport.json says, nor are {len(wrong) - 1} others"
        return failed(name, finding, f"convert the model again: msport convert {manifest.source} -o {folder}"), manifest
    nbytes = sum(tensor.nbytes for tensor in found.values())
    finding = f"{len(found)} tensors, {format_size(nbytes)}, {manifest.dtype} from {manifest.source}"
    return passed(name, finding), manifest
