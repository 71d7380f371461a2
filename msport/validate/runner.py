"""Judges a converted checkpoint. All arguments are checked before anything long begins."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from msport.architectures import ModelConfig, load_config
from msport.arguments import checked
from msport.checkpoint import Manifest, open_checkpoint, read_manifest
from msport.errors import CheckpointError, UsageError, parameter
from msport.hub import Source, resolve
from msport.progress import Phases, Progress
from msport.report.document import utc_now
from msport.sizing.process import peak_memory
from msport.validate import golden as golden_values
from msport.validate.checks import check_arguments, check_no_effect, check_same_sizes, notes_on_config
from msport.validate.compare.weights import compare_weights
from msport.validate.findings import Setup, own_versions
from msport.validate.judge import Judge
from msport.validate.memory import weight_dtype
from msport.validate.port.choice import choose_ours
from msport.validate.prompts import choose_prompts
from msport.validate.reference.loading import check_reference_installed
from msport.validate.report import Report
from msport.validate.sides import PREFILL_CHUNK

Level = Literal["logits", "layers", "weights"]
Rule = Literal["rounding", "tolerance"]


@checked
def validate_model(
    folder: str | Path,
    reference: str | Path | None = None,
    tol: float | None = None,
    *,
    level: Level = "logits",
    rule: Rule = "rounding",
    dtype: str | None = None,
    reference_dtype: str = "float32",
    stream: bool | None = None,
    prompts: Sequence[str | Sequence[int]] | None = None,
    max_length: int | None = None,
    seed: int = 0,
    save_reference: str | Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Judges the converted checkpoint in `folder` against `reference`.

    `reference` is a folder, a Hub id, or a file of golden values made by `save_reference`, which needs no torch; None:
    the source of `folder`. Level ``logits`` compares the logits of every token of every prompt, ``layers`` also every
    operation of every layer, and ``weights`` only every tensor with its source, without running the model. `tol` is the
    largest relative L2 error of a token; None: a default by the dtypes. The rule ``rounding`` also demands that
    rounding explains the errors and that every weight matches its source; ``tolerance`` checks only `tol`. `dtype` is
    our dtype of computation, `reference_dtype` the reference's (``model``: that of its weights). With `stream` both
    sides run one layer at a time; None: if the model does not fit in memory. `prompts` are texts or token ids instead
    of the default ones; `max_length` is the number of tokens of the longest default prompt.

    Raises `MissingDependencyError` without torch and Transformers, and other subclasses of `MsportError` if the model
    cannot be judged.
    """
    check_arguments(tol, level, rule, max_length, seed, reference_dtype)
    folder, phases, began = Path(folder), Phases(progress), utc_now()
    manifest = read_manifest(folder)
    config = load_config(folder)
    other_dtype = None if reference_dtype == "float32" else reference_dtype
    of_prompts = {"prompts": prompts, "max_length": max_length, "save_reference": save_reference}
    if golden_values.is_golden(reference):
        path = Path(str(reference))
        if level == "weights":
            raise UsageError(
                f"{path} holds golden values, no weights; name the original checkpoint by {parameter('reference')}"
            )
        golden = golden_values.read_golden(path, config)
        own_dtype = None if other_dtype == golden.dtype else other_dtype
        own_seed = None if seed in (0, golden.seed) else seed
        why = f"{path} holds golden values of its own prompts, seed and dtype"
        check_no_effect(why, **of_prompts, reference_dtype=own_dtype, seed=own_seed)
        setup = _setup(folder, manifest, config, str(path), level, golden.seed, began)
        return Judge(setup, choose_ours(folder, dtype), manifest, tol, rule, stream, phases, given=True).by_golden(
            path, golden
        )
    if level == "weights":
        why = f"{parameter('level')} weights runs nothing"
        other_rule = None if rule == "rounding" else rule
        of_running = {"dtype": dtype, "stream": stream, "reference_dtype": other_dtype, "seed": seed or None}
        check_no_effect(why, **of_prompts, **of_running, tol=tol, rule=other_rule)
        source = find_reference(manifest, reference)
        check_same_sizes(folder, source)
        setup = _setup(folder, manifest, config, source.id, level, seed, began)
        return _judge_weights(setup, folder, source, phases)
    if prompts is not None:
        check_no_effect("nothing is drawn where the prompts are given", seed=seed or None)
    check_reference_installed()
    save = None if save_reference is None else Path(save_reference)
    if save is not None:
        golden_values.check_new(save)
    chosen = choose_prompts(folder, config, prompts, PREFILL_CHUNK, max_length, seed)
    ours = choose_ours(folder, dtype)
    source = find_reference(manifest, reference)
    check_same_sizes(folder, source)
    computed = weight_dtype(source.folder) if reference_dtype == "model" else reference_dtype
    setup = _setup(folder, manifest, config, source.id, level, seed, began)
    judge = Judge(setup, ours, manifest, tol, rule, stream, phases, given=prompts is not None)
    return judge.by_source(source, chosen, computed, save)


def find_reference(manifest: Manifest, reference: str | Path | None) -> Source:
    """The checkpoint to compare with: `reference`, else the source in the manifest."""
    if reference is not None:
        return resolve(reference)
    remembered = Path(manifest.source)
    if remembered.is_absolute() and not remembered.is_dir():
        raise CheckpointError(
            f"{remembered}: the source of this conversion is gone; name the original by {parameter('reference')}"
        )
    return resolve(manifest.source, manifest.revision)


def checkpoint_hash(manifest: Manifest) -> str:
    """One SHA-256 for a converted checkpoint, over the names and hashes of its tensors in sorted order."""
    lines = (f"{name} {manifest.tensors[name].sha256}\n" for name in sorted(manifest.tensors))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _judge_weights(setup: Setup, folder: Path, source: Source, phases: Phases) -> Report:
    with open_checkpoint(source.folder) as original, open_checkpoint(folder) as converted:
        total = sum(tensor.nbytes for tensor in converted.tensors.values())
        with phases.phase("compare weights", total) as advance:
            weights = compare_weights(original, converted, advance)
    notes = notes_on_config(folder, source)
    return Report(setup, weights=weights, notes=notes, seconds=phases.seconds, peak_bytes=peak_memory())


def _setup(
    folder: Path, manifest: Manifest, config: ModelConfig, reference: str, level: Level, seed: int, date: str
) -> Setup:
    return Setup(
        folder=str(folder),
        architecture=config.architecture,
        source=manifest.source,
        revision=manifest.revision,
        checkpoint=checkpoint_hash(manifest),
        reference=reference,
        level=level,
        rule="rounding",
        tolerance=0.0,
        seed=seed,
        date=date,
        versions=own_versions(),
    )
