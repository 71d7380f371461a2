"""Checks that a converted folder still holds what was written, and that this matches its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msport.checkpoint import Manifest, TensorInfo, open_checkpoint, read_manifest
from msport.checkpoint.index import INDEX_NAME, NAME_MAP_NAME, read_weight_map
from msport.convert.budget import MAX_MEMORY, Budget, make_budget
from msport.convert.plan import Plan
from msport.convert.transform import Reader
from msport.convert.transforms import as_it_is
from msport.convert.workers import Workers
from msport.errors import CheckpointError, enumerate_some
from msport.progress import Progress
from msport.sizing.units import parse_size


def verify_folder(
    folder: str | Path,
    progress: Progress | None = None,
    *,
    max_memory: int | str = MAX_MEMORY,
    workers: int | None = None,
) -> Manifest:
    """Read a converted folder back, compare all of it with its manifest, and return the manifest.

    Raises CheckpointError that names everything damaged, missing or not in the manifest.
    """
    manifest = read_manifest(folder)
    tensors = [as_it_is(record.info(name), record.file) for name, record in manifest.tensors.items()]
    budget = make_budget(tensors, parse_size(max_memory), workers) if tensors else Budget(1, 0)
    check_folder(Path(folder), manifest, Workers(budget, progress))
    return manifest


def check_folder(folder: Path, manifest: Manifest, workers: Workers) -> None:
    """Compares every tensor's place and SHA-256, and both indices, with `manifest`; raises as `verify_folder`."""
    with open_checkpoint(folder) as checkpoint:
        problems = _compare(manifest, checkpoint.tensors, checkpoint.files) | _compare_indices(manifest, folder)
        intact = [name for name in manifest.tensors if name not in problems]
        tensors = [as_it_is(checkpoint.tensors[name], manifest.tensors[name].file) for name in intact]
        hashes = workers.run("read back", tensors, checkpoint)
        problems |= {
            name: f"{name} (in {manifest.tensors[name].file}) is damaged"
            for name in intact
            if hashes[name] != manifest.tensors[name].sha256
        }
    if problems:
        faults = enumerate_some(sorted(problems.values()))
        raise CheckpointError(f"{folder}: does not match msport.json: {faults}; convert the model again")


def check_source(plan: Plan, reader: Reader, hashes: Mapping[str, str], workers: Workers) -> None:
    """Compute every tensor of `plan` again. Raises CheckpointError that names those whose SHA-256 differs."""
    again = workers.run("recompute", plan.tensors, reader)
    differing = [name for name, digest in again.items() if digest != hashes[name]]
    if differing:
        raise CheckpointError(
            f"computing a second time from the source gave other bytes for {enumerate_some(sorted(differing))};"
            " the source changed meanwhile, or memory or disk are faulty: convert again"
        )


def _compare(manifest: Manifest, tensors: Mapping[str, TensorInfo], files: Mapping[str, Path]) -> dict[str, str]:
    problems = {name: f"{name} is missing" for name in manifest.tensors.keys() - tensors.keys()}
    problems |= {name: f"{name} is not in the manifest" for name in tensors.keys() - manifest.tensors.keys()}
    for name in manifest.tensors.keys() & tensors.keys():
        record = manifest.tensors[name]
        if tensors[name] != record.info(name) or files[name].name != record.file:
            problems[name] = f"{name} has another dtype, shape or place"
    return problems


def _compare_indices(manifest: Manifest, folder: Path) -> dict[str, str]:
    """Faults of the index files of the Hub's and MindSpore's loaders, by file."""
    files = {name: record.file for name, record in manifest.tensors.items()}
    names = (NAME_MAP_NAME, INDEX_NAME) if manifest.format == "safetensors" else (NAME_MAP_NAME,)
    problems = {}
    for name in names:
        if not (folder / name).is_file():
            problems[name] = f"{name} is missing"
        elif read_weight_map(folder / name) != files:
            problems[name] = f"{name} names other files"
    return problems
