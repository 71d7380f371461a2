"""Judging a converted checkpoint: first the reference computes, then we do, then the two are compared.

The two sides never alternate: their thread pools would fight for the cores, and both sets of weights would stand in
memory at once.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from msport import __version__
from msport.architectures import ModelConfig, load_config, read_config
from msport.checkpoint import Manifest, open_checkpoint, read_manifest
from msport.errors import CheckpointError, ConfigError, UsageError
from msport.hub import Source, resolve
from msport.msmodels.tokenizer import load_tokenizer
from msport.validate.layers import LayerError, compare_layers, first_departure
from msport.validate.logits import compare_logits, tokens_to_compare
from msport.validate.phases import Phases, Progress
from msport.validate.prompts import Prompt, default_prompts, given_prompts, stated_special_ids
from msport.validate.recording import Recording, RecordingWriter
from msport.validate.reference import check_reference_installed, load_reference, reference_versions
from msport.validate.report import PromptResult, Report, Setup
from msport.validate.weights import compare_weights

if TYPE_CHECKING:
    from msport.msmodels.model import LanguageModel

Level = Literal["logits", "layers", "weights"]
LEVELS: tuple[Level, ...] = ("logits", "layers", "weights")
PREFILL_CHUNK = 128


def validate_model(
    folder: str | Path,
    reference: str | Path | None = None,
    tol: float = 1e-2,
    *,
    level: Level = "logits",
    dtype: str | None = None,
    prompts: Sequence[str | Sequence[int]] | None = None,
    max_length: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Judges the converted checkpoint in `folder` against `reference`, a folder or Hub id; None: where it came from.

    ``logits`` compares the logits of every token of every prompt, ``layers`` the residual stream after each layer too,
    and ``weights`` every tensor with its source, without running anything. `dtype` is the one we compute in; the
    reference computes in float32. `prompts` are texts or token ids instead of the default ones; `max_length` is the
    length of the longest default prompt.

    Raises `MissingDependencyError` without torch and Transformers, and other subclasses of `MsportError` where the
    model cannot be judged.
    """
    _check_arguments(tol, level, max_length, seed)
    folder, phases = Path(folder), Phases(progress)
    manifest = read_manifest(folder)
    if level != "weights":
        check_reference_installed()
    source = find_reference(manifest, reference)
    setup = _setup(folder, manifest, source, level, tol, seed)
    if level == "weights":
        return _judge_weights(setup, folder, source, phases)
    chosen = _choose_prompts(folder, prompts, max_length, seed)
    _check_same_sizes(folder, source)
    return _judge_logits(setup, folder, source, chosen, dtype, phases)


def find_reference(manifest: Manifest, reference: str | Path | None) -> Source:
    """The checkpoint to compare with: `reference`, else the source that the manifest remembers."""
    if reference is not None:
        return resolve(reference)
    remembered = Path(manifest.source)
    if remembered.is_absolute() and not remembered.is_dir():
        raise CheckpointError(f"{remembered}: the source of this conversion is gone; name the original by --reference")
    return resolve(manifest.source, manifest.revision)


def checkpoint_hash(manifest: Manifest) -> str:
    """One SHA-256 for a converted checkpoint, over the names and hashes of its tensors in sorted order."""
    lines = (f"{name} {manifest.tensors[name].sha256}\n" for name in sorted(manifest.tensors))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _judge_logits(
    setup: Setup, folder: Path, source: Source, prompts: Sequence[Prompt], dtype: str | None, phases: Phases
) -> Report:
    from msport.msmodels.loading import choose_dtype, load_model

    dtype = choose_dtype(dtype)  # before the reference runs for minutes
    config = load_config(folder)
    longest = max(len(prompt.ids) for prompt in prompts)
    with TemporaryDirectory(prefix="msport-validate-") as scratch:
        path = Path(scratch) / "reference.safetensors"
        _record_reference(source.folder, path, config, prompts, phases)
        with phases.phase("load model"):
            model = load_model(folder, dtype=dtype, max_length=longest, prefill_chunk=PREFILL_CHUNK)
        with Recording(path) as recording:
            with phases.phase("run model", tokens_to_compare(prompts)) as advance:
                results = compare_logits(model, recording, prompts, advance)
            layers = _compare_layers(setup, model, recording, results, phases)
    setup = replace(
        setup,
        versions=setup.versions | reference_versions() | {"mindspore": version("mindspore")},
        device=model.device,
        dtype=model.dtype,
        operators=model.operators,
        max_length=model.max_length,
        prefill_chunk=model.prefill_chunk,
    )
    departure = first_departure(layers, model.dtype, setup.tolerance)
    notes = (*_notes_on_config(folder, source), *notes_on(config, longest, model.prefill_chunk))
    return Report(setup, results, layers, departure, notes=notes, seconds=phases.seconds)


def _record_reference(folder: Path, path: Path, config: ModelConfig, prompts: Sequence[Prompt], phases: Phases) -> None:
    with RecordingWriter(path, prompts, config) as writer:
        with phases.phase("load reference"):
            reference = load_reference(folder)
        with phases.phase("run reference", sum(len(prompt.ids) for prompt in prompts)) as advance:
            for number, prompt in enumerate(prompts):
                for chunk in reference.run(prompt.ids):
                    writer.add(number, chunk)
                    advance(len(chunk.logits))
        reference.close()


def _compare_layers(
    setup: Setup, model: LanguageModel, recording: Recording, results: Sequence[PromptResult], phases: Phases
) -> tuple[LayerError, ...]:
    """All prompts if layers are to be judged; the worst one, to locate the fault, if the logits failed; else none."""
    prompts = [result.prompt for result in results if result.path == "prefill"]
    if setup.level == "layers":
        chosen = list(enumerate(prompts))
    else:
        failed = [result for result in results if result.failed(setup.tolerance)]
        worst = max(failed, key=lambda result: result.errors.relative_l2.max(), default=None)
        chosen = [] if worst is None else [(prompts.index(worst.prompt), worst.prompt)]
    if not chosen:
        return ()
    with phases.phase("compare layers", sum(len(prompt.ids) for _, prompt in chosen)) as advance:
        return compare_layers(model, recording, chosen, advance)


def _judge_weights(setup: Setup, folder: Path, source: Source, phases: Phases) -> Report:
    with open_checkpoint(source.folder) as original, open_checkpoint(folder) as converted:
        total = sum(tensor.nbytes for tensor in converted.tensors.values())
        with phases.phase("compare weights", total) as advance:
            weights = compare_weights(original, converted, advance)
    return Report(setup, weights=weights, notes=_notes_on_config(folder, source), seconds=phases.seconds)


def _setup(folder: Path, manifest: Manifest, source: Source, level: Level, tolerance: float, seed: int) -> Setup:
    return Setup(
        folder=str(folder),
        architecture=load_config(folder).architecture,
        source=manifest.source,
        revision=manifest.revision,
        checkpoint=checkpoint_hash(manifest),
        reference=source.id,
        level=level,
        tolerance=tolerance,
        seed=seed,
        versions={"msport": __version__, "python": platform.python_version(), "numpy": version("numpy")},
    )


def _choose_prompts(
    folder: Path, prompts: Sequence[str | Sequence[int]] | None, max_length: int | None, seed: int
) -> tuple[Prompt, ...]:
    config, tokenizer = load_config(folder), load_tokenizer(folder)
    if prompts is not None:
        return given_prompts(prompts, config, tokenizer, max_length)
    special = stated_special_ids(folder) | (tokenizer.special_ids if tokenizer else frozenset())
    return default_prompts(config, tokenizer, special, prefill_chunk=PREFILL_CHUNK, max_length=max_length, seed=seed)


def _check_arguments(tolerance: float, level: str, max_length: int | None, seed: int) -> None:
    if level not in LEVELS:
        raise UsageError(f"level {level!r} is none of {', '.join(LEVELS)}")
    if not 0.0 <= tolerance < float("inf"):
        raise UsageError(f"the tolerance is {tolerance}; give a number from 0 up, such as 1e-2")
    if max_length is not None and max_length < 1:
        raise UsageError(f"max_length is {max_length}; give a positive number of tokens")
    if seed < 0:
        raise UsageError(f"seed is {seed}; give 0 or a positive integer")


def _check_same_sizes(folder: Path, source: Source) -> None:
    """Refuses to compare two different models; how one computes may differ, that is what validation is for."""
    ours, theirs = load_config(folder), load_config(source.folder)
    for name in ("architecture", "vocab_size", "hidden_size", "num_hidden_layers"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ConfigError(
                f"{source.folder}: not the model that {folder} was converted from: {name} is"
                f" {getattr(theirs, name)}, not {getattr(ours, name)}; give the original by --reference"
            )


def _notes_on_config(folder: Path, source: Source) -> tuple[str, ...]:
    """Each side follows its own config.json: where they differ, the models do."""
    ours, theirs = read_config(folder), read_config(source.folder)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return (f"config.json differs from the reference's in {', '.join(differing)}",) if differing else ()


def notes_on(config: ModelConfig, longest: int, prefill_chunk: int) -> tuple[str, ...]:
    """What prompts of at most `longest` tokens could not have shown."""
    window = max((window for window in config.windows if window), default=0)
    original = config.rope.original_max_position_embeddings
    notes = []
    if longest <= window:
        notes.append(f"no prompt passes the window of {window} tokens: faults of the window cannot show")
    if longest <= prefill_chunk:
        notes.append(f"no prompt passes the prefill chunk of {prefill_chunk} tokens: faults between chunks cannot show")
    if original and longest <= original:
        notes.append(
            f"no prompt passes {original} positions, for which {config.rope.rope_type} extends the model:"
            f" repeat with --max-length {original + 2 * prefill_chunk} to judge long contexts"
        )
    return tuple(notes)
