"""What a checkpoint holds and whether msport supports it, from headers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msport.architectures import read_config
from msport.checkpoint import Manifest, TensorInfo, open_checkpoint, read_manifest
from msport.checkpoint.manifest import FILE_NAME as MANIFEST_NAME
from msport.checkpoint.reader import read_header
from msport.convert.matching import match_checkpoint
from msport.convert.output_folder import unfinished
from msport.convert.tensors import Catalog
from msport.errors import MsportError, UsageError


@dataclass(frozen=True, slots=True)
class Inspection:
    """A checkpoint: its tensors, the file of each, and the model.

    `architecture` is None if there is no ``config.json`` (a single file). `problem` says why msport does not support
    the folder, or is None. `manifest` is that of a converted folder. `parameters` counts each packed MXFP4 value.
    """

    path: Path
    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, Path]
    parameters: int
    architecture: str | None = None
    problem: str | None = None
    manifest: Manifest | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


def inspect_path(path: str | Path) -> Inspection:
    """Inspect a folder in the Hub's layout, a converted folder, or one ``.safetensors`` or ``.ckpt`` file.

    Raises CheckpointError if a header is malformed or the files disagree, and UsageError if there is nothing at `path`,
    or an unfinished conversion.
    """
    path = Path(path)
    if partial := unfinished(path):
        raise UsageError(
            f"{path}: belongs to a conversion that is not finished; run the same msport convert command again to go on,"
            f" or remove {partial}"
        )
    if path.is_dir():
        return _inspect_folder(path)
    if not path.exists():
        raise UsageError(
            f"{path}: no such file or folder; give a checkpoint's folder or one of its files"
            " (a model on a Hub: msport convert ID --dry-run)"
        )
    tensors = read_header(path).tensors
    return Inspection(path, tensors, dict.fromkeys(tensors, path), _stored_parameters(tensors))


def _inspect_folder(folder: Path) -> Inspection:
    with open_checkpoint(folder) as checkpoint:
        architecture, parameters, problem = _model(checkpoint)
    manifest = read_manifest(folder) if (folder / MANIFEST_NAME).exists() else None
    return Inspection(folder, checkpoint.tensors, checkpoint.files, parameters, architecture, problem, manifest)


def _model(checkpoint: Catalog) -> tuple[str | None, int, str | None]:
    """The architecture's name, its number of parameters, and why msport does not support it."""
    try:
        architecture, matches, _ = match_checkpoint(checkpoint)
    except MsportError as error:
        return _named_architecture(checkpoint.folder), _stored_parameters(checkpoint.tensors), str(error)
    return architecture.name, sum(math.prod(found.weight.shape) for found in matches), None


def _named_architecture(folder: Path) -> str | None:
    try:
        names = read_config(folder).get("architectures")
    except MsportError:
        return None
    return str(names[0]) if isinstance(names, list) and names else None


def _stored_parameters(tensors: Mapping[str, TensorInfo]) -> int:
    """Number of parameters according to names: two per byte of MXFP4 blocks, none in their scales."""
    return sum(_values(tensor, tensors) for tensor in tensors.values())


def _values(tensor: TensorInfo, tensors: Mapping[str, TensorInfo]) -> int:
    if tensor.name.endswith("_scales") and f"{tensor.name.removesuffix('_scales')}_blocks" in tensors:
        return 0
    packed = tensor.name.endswith("_blocks") and f"{tensor.name.removesuffix('_blocks')}_scales" in tensors
    return math.prod(tensor.shape) * (2 if packed else 1)
