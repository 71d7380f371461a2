"""Judging a converted checkpoint: first the reference computes, then we do, then the two are compared.

The two sides never alternate: their thread pools would fight for the cores, and both sets of weights would stand in
memory at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from msport.architectures import ModelConfig, load_config
from msport.checkpoint import Manifest, open_checkpoint, read_manifest
from msport.errors import CheckpointError, UsageError
from msport.hub import Source, resolve
from msport.validate import golden as golden_values
from msport.validate.checks import check_arguments, check_same_sizes, notes_on, notes_on_config
from msport.validate.golden import Golden
from msport.validate.layers import first_departure
from msport.validate.memory import peak_bytes, too_large, weight_dtype
from msport.validate.phases import Phases, Progress
from msport.validate.prompts import Prompt, choose_prompts
from msport.validate.recording import Recording, RecordingWriter
from msport.validate.reference import check_reference_installed, load_reference, reference_versions, steps_of
from msport.validate.report import Report, Setup, own_versions
from msport.validate.sides import PREFILL_CHUNK, Outcome, judge_loaded, judge_streamed
from msport.validate.tolerance import Dtypes, default_tolerance, explain_rounding, rounding
from msport.validate.weights import compare_weights

Level = Literal["logits", "layers", "weights"]


def validate_model(
    folder: str | Path,
    reference: str | Path | None = None,
    tol: float | None = None,
    *,
    level: Level = "logits",
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

    `reference` is a folder, a Hub id, or a file of golden values that `save_reference` made, which needs no torch; None
    is what `folder` was converted from. ``logits`` compares the logits of every token of every prompt, ``layers`` every
    operation of every layer too, and ``weights`` every tensor with its source, without running anything. `tol` is the
    relative L2 error that a token may have, None what the mantissa of the dtypes allows. `dtype` is the one we compute
    in, `reference_dtype` the reference's (``model``: the one its weights have). With `stream` both sides run one layer
    at a time, None: where the model would not fit in memory. `prompts` are texts or token ids instead of the default
    ones; `max_length` is the length of the longest default prompt.

    Raises `MissingDependencyError` without torch and Transformers, and other subclasses of `MsportError` where the
    model cannot be judged.
    """
    check_arguments(tol, level, max_length, seed, reference_dtype)
    folder, phases = Path(folder), Phases(progress)
    manifest = read_manifest(folder)
    config = load_config(folder)
    if golden_values.is_golden(reference):
        if level == "weights" or prompts is not None or save_reference is not None:
            raise UsageError(
                f"{reference} holds golden values of its own prompts: neither --level weights nor other prompts nor"
                " --save-reference go with it"
            )
        path = Path(str(reference))
        golden = golden_values.read_golden(path, config)
        setup = _setup(folder, manifest, config, str(path), level, golden.seed)
        return _Judge(setup, folder, manifest, config, dtype, tol, stream, phases).by_golden(path, golden)
    if level != "weights":
        check_reference_installed()
    source = find_reference(manifest, reference)
    setup = _setup(folder, manifest, config, source.id, level, seed)
    if level == "weights":
        return _judge_weights(replace(setup, tolerance=tol or 0.0), folder, source, phases)
    save = None if save_reference is None else Path(save_reference)
    if save is not None:
        golden_values.check_new(save)
    chosen = choose_prompts(folder, config, prompts, PREFILL_CHUNK, max_length, seed)
    check_same_sizes(folder, source)
    computed = weight_dtype(source.folder) if reference_dtype == "model" else reference_dtype
    judge = _Judge(setup, folder, manifest, config, dtype, tol, stream, phases)
    return judge.by_source(source, chosen, computed, save)


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


@dataclass
class _Judge:
    """One verdict by logits, with or without layers."""

    setup: Setup
    folder: Path
    manifest: Manifest
    config: ModelConfig
    dtype: str | None
    tolerance: float | None
    stream: bool | None
    phases: Phases

    def by_source(self, source: Source, prompts: Sequence[Prompt], reference_dtype: str, save: Path | None) -> Report:
        """Runs the reference first; its values go to `save` too."""
        ours = self._choose_dtype()
        self.stream = too_large(self.config, ours) if self.stream is None else self.stream
        versions = reference_versions()
        with self._recorded(source.folder, prompts, reference_dtype) as recording:
            if save is not None:
                with self.phases.phase("save reference"):
                    made = self._golden(source, prompts, reference_dtype, versions)
                    golden_values.save_golden(recording, save, made)
            outcome = self._run(recording, prompts, ours, reference_dtype)
        notes = notes_on_config(self.folder, source)
        return self._report(outcome, prompts, weight_dtype(source.folder), reference_dtype, versions, notes)

    def by_golden(self, path: Path, golden: Golden) -> Report:
        """Compares with values that a reference computed elsewhere."""
        ours = self._choose_dtype()
        self.stream = too_large(self.config, ours) if self.stream is None else self.stream
        if self.setup.level == "layers" and golden.level != "layers":
            raise UsageError(f"{path}: was saved without operations; save it again with --level layers")
        with Recording(path) as recording:
            outcome = self._run(recording, golden.prompts, ours, golden.dtype)
        notes: tuple[str, ...] = ()
        if golden.checkpoint != self.setup.checkpoint:
            notes = ("the golden values were saved beside another conversion: weights may be rounded otherwise",)
        return self._report(outcome, golden.prompts, golden.source_dtype, golden.dtype, golden.versions, notes)

    def _choose_dtype(self) -> str:
        from msport.msmodels.loading import choose_dtype

        return choose_dtype(self.dtype)  # before the reference runs for minutes

    @contextmanager
    def _recorded(self, source: Path, prompts: Sequence[Prompt], dtype: str) -> Iterator[Recording]:
        with TemporaryDirectory(prefix="msport-validate-") as scratch:
            folder = Path(scratch)
            with RecordingWriter(folder, prompts, self.config.vocab_size) as writer:
                with self.phases.phase("load reference"):
                    reference = self._load(source, dtype)
                with self.phases.phase("run reference", steps_of(self.config.num_hidden_layers)) as advance:
                    every = self.setup.level == "layers"
                    reference.record(prompts, writer, every_operation=every, advance=advance)
                reference.close()
            with Recording(folder) as recording:
                yield recording

    def _load(self, source: Path, dtype: str) -> Any:
        if not self.stream:
            return load_reference(source, dtype)
        from msport.validate.reference_stream import stream_reference

        return stream_reference(source, dtype)

    def _run(self, recording: Recording, prompts: Sequence[Prompt], dtype: str, reference_dtype: str) -> Outcome:
        if self.stream:
            return judge_streamed(
                self.folder, recording, prompts, dtype=dtype, config=self.config, reference_dtype=reference_dtype,
                phases=self.phases,
            )  # fmt: skip
        tolerance = default_tolerance(dtype, reference_dtype) if self.tolerance is None else self.tolerance
        return judge_loaded(
            self.folder, recording, prompts, dtype=dtype, level=self.setup.level, tolerance=tolerance,
            reference_dtype=reference_dtype, phases=self.phases,
        )  # fmt: skip

    def _report(
        self,
        outcome: Outcome,
        prompts: Sequence[Prompt],
        source_dtype: str,
        reference_dtype: str,
        versions: dict[str, str],
        notes: tuple[str, ...],
    ) -> Report:
        tolerance = default_tolerance(outcome.dtype, reference_dtype) if self.tolerance is None else self.tolerance
        longest = max(len(prompt.ids) for prompt in prompts)
        setup = replace(
            self.setup,
            tolerance=tolerance,
            versions=self.setup.versions | _of_reference(versions) | {"mindspore": version("mindspore")},
            device=outcome.device,
            dtype=outcome.dtype,
            operators=outcome.operators,
            max_length=longest,
            prefill_chunk=min(PREFILL_CHUNK, longest),
            reference_dtype=reference_dtype,
            streamed=bool(self.stream),
        )
        departure = first_departure(outcome.layers, rounding(outcome.dtype, reference_dtype), tolerance)
        stored = source_dtype if self.manifest.dtype == "mxfp4" else self.manifest.dtype  # packed is as it came
        dtypes = Dtypes(source_dtype, stored, outcome.dtype, reference_dtype)
        largest = max(float(result.errors.relative_l2.max()) for result in outcome.results)
        alone = [o.largest for error in outcome.layers for o in error.operations if not o.departs]
        return Report(
            setup,
            outcome.results,
            outcome.layers,
            departure,
            notes=(*notes, *notes_on(self.config, longest, PREFILL_CHUNK, streamed=bool(self.stream))),
            seconds=self.phases.seconds,
            rounding=explain_rounding(dtypes, largest, alone),
            peak_bytes=peak_bytes(),
        )

    def _golden(
        self, source: Source, prompts: Sequence[Prompt], reference_dtype: str, versions: dict[str, str]
    ) -> Golden:
        return Golden(
            source=source.id,
            revision=source.revision,
            checkpoint=self.setup.checkpoint,
            level=self.setup.level,
            dtype=reference_dtype,
            source_dtype=weight_dtype(source.folder),
            seed=self.setup.seed,
            versions=self.setup.versions | versions,
            sizes=golden_values.sizes_of(self.config),
            prompts=tuple(prompts),
        )


def _judge_weights(setup: Setup, folder: Path, source: Source, phases: Phases) -> Report:
    with open_checkpoint(source.folder) as original, open_checkpoint(folder) as converted:
        total = sum(tensor.nbytes for tensor in converted.tensors.values())
        with phases.phase("compare weights", total) as advance:
            weights = compare_weights(original, converted, advance)
    notes = notes_on_config(folder, source)
    return Report(setup, weights=weights, notes=notes, seconds=phases.seconds, peak_bytes=peak_bytes())


def _setup(folder: Path, manifest: Manifest, config: ModelConfig, reference: str, level: Level, seed: int) -> Setup:
    return Setup(
        folder=str(folder),
        architecture=config.architecture,
        source=manifest.source,
        revision=manifest.revision,
        checkpoint=checkpoint_hash(manifest),
        reference=reference,
        level=level,
        tolerance=0.0,
        seed=seed,
        versions=own_versions(),
    )


def _of_reference(versions: dict[str, str]) -> dict[str, str]:
    """The versions that the reference's values depend on; the others of a golden file are another machine's."""
    return {name: versions[name] for name in ("torch", "transformers")}
