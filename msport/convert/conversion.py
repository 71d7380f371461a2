"""A whole conversion: resolve the model, plan, execute, verify, move into place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msport import __version__
from msport.arguments import checked
from msport.checkpoint import (
    Manifest,
    TensorRecord,
    index_document,
    write_atomically,
    write_manifest,
)
from msport.checkpoint.index import INDEX_NAME, NAME_MAP_NAME
from msport.checkpoint.manifest import FILE_NAME as MANIFEST_NAME
from msport.convert.budget import MAX_MEMORY, Budget, make_budget
from msport.convert.execute import execute
from msport.convert.journal import Done
from msport.convert.output_folder import Staging, check_space, occupied_space, resolve_output
from msport.convert.plan import AUTO, GROUP_SIZE, MAX_SHARD_SIZE, Plan, make_plan
from msport.convert.resume import find_done, journalled, make_fingerprint
from msport.convert.small_files import copy_small_files, find_small_files
from msport.convert.verify import check_folder, check_source
from msport.convert.workers import Workers
from msport.errors import CheckpointError, UsageError
from msport.hub import AnyCheckpoint, Network, Source, resolve
from msport.progress import Progress
from msport.sizing.units import parse_size


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of a conversion; `convert_checkpoint` describes them."""

    dtype: str = AUTO
    format: str = "safetensors"
    max_shard_size: int | str = MAX_SHARD_SIZE
    max_memory: int | str = MAX_MEMORY
    workers: int | None = None
    revision: str | None = None
    source: str | None = None
    keep_source: bool = False
    network: Network | None = None
    group_size: int = GROUP_SIZE
    zero_points: bool = False
    head: str = AUTO


DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class Conversion:
    """Everything about a conversion that is known before it writes anything."""

    source: Source
    checkpoint: AnyCheckpoint
    output: Path
    plan: Plan
    budget: Budget
    small_files: tuple[Path, ...]

    @property
    def disk_nbytes(self) -> int:
        """Bytes of the output, without the index and the manifest, which are small."""
        return self.plan.file_nbytes + sum(file.stat().st_size for file in self.small_files)


@checked
def convert_checkpoint(
    model: str | Path,
    output: str | Path | None = None,
    *,
    dtype: str = AUTO,
    format: str = "safetensors",  # noqa: A002  the contract's name
    max_shard_size: int | str = MAX_SHARD_SIZE,
    max_memory: int | str = MAX_MEMORY,
    workers: int | None = None,
    revision: str | None = None,
    source: str | None = None,
    keep_source: bool = False,
    network: Network | None = None,
    group_size: int = GROUP_SIZE,
    zero_points: bool = False,
    head: str = AUTO,
    verify: bool = False,
    restart: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Convert a Hub checkpoint to a folder that MindSpore loads, within bounded memory; returns its manifest.

    `model` is a folder or a Hub id. `output` is a new or empty folder, by default the model's name with ``-ms`` in the
    current folder. Floating-point tensors become `dtype`, rounded to nearest even if it is narrower; integers are never
    cast. ``auto`` keeps each tensor's dtype, decodes MXFP4 and FP8 to bfloat16, and keeps GPTQ, AWQ and
    compressed-tensors packed; ``mxfp4`` keeps packed experts packed and makes everything else bfloat16; ``int8`` and
    ``int4`` quantise linear layers and experts, in groups of `group_size` inputs, symmetric or with `zero_points`. With
    `head` ``int8`` the head is quantised too, or the embedding if it is the head. Sizes are bytes or text such as
    ``"5GB"``; `max_memory` is the resident memory of a process that does nothing else. With `verify` the result is read
    back and computed again from the source before it appears. `progress` is called after every slab.

    For a Hub id, `source` is the Hub: ``huggingface`` (the default) or ``modelscope``. The weights are streamed within
    the limits of `network`, unless that Hub's cache holds all of them; with `keep_source` they are downloaded into the
    cache first. For a folder, give neither.

    The folder appears when it is complete; if anything fails, it does not appear. Raises subclasses of MsportError, and
    OSError with the name of the file.
    """
    options = Options(
        dtype,
        format,
        max_shard_size,
        max_memory,
        workers,
        revision,
        source,
        keep_source,
        network,
        group_size,
        zero_points,
        head,
    )
    return run(prepare(model, output, options), verify=verify, restart=restart, progress=progress)


def prepare(model: str | Path, output: str | Path | None = None, options: Options = DEFAULTS) -> Conversion:
    """Check and plan a conversion with the arguments of `convert_checkpoint`, without writing anything."""
    if output is None:
        _check_unconverted(Path(model).expanduser())
    destination = resolve_output(Path(output) if output is not None else default_output(model))
    found = resolve(
        model, options.revision, hub=options.source, stream=not options.keep_source, network=options.network
    )
    if options.keep_source and found.revision is None:
        raise UsageError(f"{model}: is a folder, of which no copy is downloaded; leave keep_source (--keep-source) out")
    checkpoint = found.open()
    plan = make_plan(
        checkpoint,
        dtype=options.dtype,
        format=options.format,
        max_shard_size=options.max_shard_size,
        group_size=options.group_size,
        zero_points=options.zero_points,
        head=options.head,
    )
    remote = found.stream is not None
    budget = make_budget(plan.tensors, parse_size(options.max_memory), options.workers, remote=remote)
    return Conversion(found, checkpoint, destination, plan, budget, find_small_files(found.folder))


def run(
    conversion: Conversion, *, verify: bool = False, restart: bool = False, progress: Progress | None = None
) -> Manifest:
    """Carry out `conversion`, or the rest of it after an interrupted run; returns the manifest of the finished
    folder.
    """
    plan, workers = conversion.plan, Workers(conversion.budget, progress)
    with (
        conversion.checkpoint as checkpoint,
        Staging(conversion.output) as staging,
        journalled(staging, plan, _fingerprint(conversion), workers, restart=restart) as journal,
    ):
        check_disk(conversion)
        survey = conversion.source.stream is None  # over a network this would cost a second download
        hashes = execute(plan, checkpoint, staging.folder, workers, journal, survey=survey)
        copy_small_files(conversion.small_files, staging.folder)
        _write_index(plan, staging.folder)
        manifest = _manifest(conversion, hashes)
        if verify:
            _verify(conversion, staging, manifest, workers)
        write_manifest(staging.folder, manifest)
        staging.commit()
    return manifest


def find_unfinished(conversion: Conversion) -> Done:
    """What an interrupted run of `conversion` has done; empty if there was none.

    Raises OutputError if that was another conversion.
    """
    return find_done(conversion.output, conversion.plan, _fingerprint(conversion)) or Done()


def check_disk(conversion: Conversion) -> None:
    """Raises OutputError if the disk is too small for the rest of `conversion`."""
    check_space(conversion.output, conversion.disk_nbytes, occupied_space(conversion.output))


def _check_unconverted(folder: Path) -> None:
    """Raises UsageError for a converted folder: converting it again is usually a mistake, unless the output is
    named.
    """
    if (folder / MANIFEST_NAME).is_file():
        raise UsageError(
            f"{folder}: is converted already, and ready to use; to convert it again, to another dtype or format, name"
            " the output with -o"
        )


def default_output(model: str | Path) -> Path:
    """The model's name with ``-ms``, in the current folder."""
    name = Path(model).name or Path(model).resolve().name
    return Path(f"{name}-ms")


def _verify(conversion: Conversion, staging: Staging, manifest: Manifest, workers: Workers) -> None:
    hashes = {name: record.sha256 for name, record in manifest.tensors.items()}
    try:
        check_folder(staging.folder, manifest, workers)
        check_source(conversion.plan, conversion.checkpoint, hashes, workers)
    except CheckpointError:
        staging.forget()
        raise


def _fingerprint(conversion: Conversion) -> dict[str, Any]:
    versions = {path.name: header.version for path, header in conversion.checkpoint.headers.items()}
    return make_fingerprint(conversion.plan, conversion.source.id, conversion.source.revision, versions)


def _write_index(plan: Plan, folder: Path) -> None:
    document = index_document({tensor.name: tensor.file for tensor in plan.tensors}, plan.nbytes)
    if plan.format == "safetensors":
        write_atomically(folder / INDEX_NAME, document)
    write_atomically(folder / NAME_MAP_NAME, document)


def _manifest(conversion: Conversion, hashes: Mapping[str, str]) -> Manifest:
    plan, source = conversion.plan, conversion.source
    records = {
        tensor.name: TensorRecord(tensor.dtype, tensor.shape, tensor.file, tensor.extents, hashes[tensor.name])
        for tensor in plan.tensors
    }
    source_format = next(iter(conversion.checkpoint.files.values())).suffix.removeprefix(".")
    return Manifest(
        source.id, source.revision, source_format, __version__, plan.dtype, plan.format, records, source.fetched
    )
