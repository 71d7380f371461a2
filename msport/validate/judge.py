"""One verdict by logits, with or without layers: the reference's values first, then ours beside them.

The two sides never alternate: their thread pools would fight for the cores, and both sets of weights would stand in
memory at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msport.architectures import load_config
from msport.checkpoint import Manifest, open_checkpoint
from msport.errors import MsportError, UsageError, parameter
from msport.hub import Source
from msport.memory import peak_memory
from msport.phases import Phases
from msport.validate import golden as golden_values
from msport.validate.checks import notes_on, notes_on_config
from msport.validate.findings import Setup
from msport.validate.golden import Golden
from msport.validate.layers import LayerError, first_departure
from msport.validate.memory import too_large, weight_dtype, weight_nbytes
from msport.validate.operations import EMBEDDING, HEAD
from msport.validate.ours import Ours
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter
from msport.validate.reference import load_reference, memory_errors, reference_versions, steps_of
from msport.validate.report import Report
from msport.validate.sides import PREFILL_CHUNK, Outcome, judge_loaded, judge_streamed
from msport.validate.tolerance import Dtypes, default_tolerance, explain_rounding, rounding
from msport.validate.weights import TensorCheck, compare_weights

# The tensors of the stations beside the layers; a tied head has the embedding's.
_TENSORS = {EMBEDDING: ("model.embed_tokens.",), HEAD: ("model.norm.", "lm_head.", "model.embed_tokens.")}


@dataclass
class Judge:
    """What a verdict needs beside a reference.

    `tolerance` None is chosen by the dtypes, `stream` None by the memory; `given`: prompts are not the default ones.
    """

    setup: Setup
    ours: Ours
    manifest: Manifest
    tolerance: float | None
    stream: bool | None
    phases: Phases
    given: bool

    def by_source(self, source: Source, prompts: Sequence[Prompt], reference_dtype: str, save: Path | None) -> Report:
        """Runs the reference first; its values go to `save` too."""
        if self.stream is None:  # the reference decodes what we may keep packed
            self.stream = too_large(weight_nbytes(load_config(self.ours.folder), "float32"))
        versions = reference_versions()
        with self._recorded(source.folder, prompts, reference_dtype) as recording:
            if save is not None:
                with self.phases.phase("save reference"):
                    made = self._golden(source, prompts, reference_dtype, versions)
                    golden_values.save_golden(recording, save, made)
            outcome = self._run(recording, prompts, reference_dtype)
        notes = notes_on_config(self.ours.folder, source)
        report = self._report(outcome, prompts, weight_dtype(source.folder), reference_dtype, versions, notes)
        return self._with_weights(report, source)

    def by_golden(self, path: Path, golden: Golden) -> Report:
        """Compares with values that a reference computed elsewhere."""
        if self.stream is None:
            self.stream = too_large(weight_nbytes(self.ours.config, self.ours.dtype))
        if self.setup.level == "layers" and golden.level != "layers":
            raise UsageError(f"{path}: was saved without operations; save it again with {parameter('level')} layers")
        with Recording(path) as recording:
            outcome = self._run(recording, golden.prompts, golden.dtype)
        notes: tuple[str, ...] = ()
        if golden.checkpoint != self.setup.checkpoint:
            notes = ("the golden values were saved beside another conversion: weights may be rounded otherwise",)
        return self._report(outcome, golden.prompts, golden.source_dtype, golden.dtype, golden.versions, notes)

    @contextmanager
    def _recorded(self, source: Path, prompts: Sequence[Prompt], dtype: str) -> Iterator[Recording]:
        config = self.ours.config
        with TemporaryDirectory(prefix="msport-validate-") as scratch:
            folder = Path(scratch)
            with memory_errors(), RecordingWriter(folder, prompts, config.vocab_size) as writer:
                with self.phases.phase("load reference"):
                    reference = self._load(source, dtype)
                with self.phases.phase("run reference", steps_of(config.num_hidden_layers)) as advance:
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

    def _run(self, recording: Recording, prompts: Sequence[Prompt], reference_dtype: str) -> Outcome:
        if self.stream:
            return judge_streamed(self.ours, recording, prompts, reference_dtype=reference_dtype, phases=self.phases)
        return judge_loaded(
            self.ours,
            recording,
            prompts,
            level=self.setup.level,
            tolerance=self._tolerance(reference_dtype),
            reference_dtype=reference_dtype,
            phases=self.phases,
        )

    def _tolerance(self, reference_dtype: str) -> float:
        return default_tolerance(self.ours.dtype, reference_dtype) if self.tolerance is None else self.tolerance

    def _report(
        self,
        outcome: Outcome,
        prompts: Sequence[Prompt],
        source_dtype: str,
        reference_dtype: str,
        versions: dict[str, str],
        notes: tuple[str, ...],
    ) -> Report:
        ours, tolerance = self.ours, self._tolerance(reference_dtype)
        longest = max(len(prompt.ids) for prompt in prompts)
        setup = replace(
            self.setup,
            tolerance=tolerance,
            versions=self.setup.versions | _of_reference(versions) | {"mindspore": version("mindspore")},
            device=outcome.device,
            dtype=ours.dtype,
            packed=ours.packed,
            operators=outcome.operators,
            max_length=longest,
            prefill_chunk=min(PREFILL_CHUNK, longest),
            reference_dtype=reference_dtype,
            streamed=bool(self.stream),
        )
        departure = first_departure(outcome.layers, rounding(ours.dtype, reference_dtype), tolerance)
        stored = source_dtype if self.manifest.dtype == "mxfp4" else self.manifest.dtype  # packed is as it came
        dtypes = Dtypes(source_dtype, stored, ours.dtype, reference_dtype)
        largest = max(float(result.errors.relative_l2.max()) for result in outcome.results)
        alone = [o.largest for error in outcome.layers for o in error.operations if not o.departs]
        return Report(
            setup,
            outcome.results,
            outcome.layers,
            departure,
            notes=(
                *notes,
                *notes_on(ours.config, longest, PREFILL_CHUNK, streamed=bool(self.stream), given=self.given),
            ),
            seconds=self.phases.seconds,
            rounding=explain_rounding(dtypes, largest, alone),
            peak_bytes=peak_memory(),
        )

    def _with_weights(self, report: Report, source: Source) -> Report:
        """`report` with a look at the weights of the layer that departs: they or the computation are at fault."""
        departure = report.departure
        if departure is None or departure.first_operation is None:
            return report
        try:
            with self.phases.phase("compare weights"):
                weights = _weights_of(departure, source.folder, self.ours.folder)
        except MsportError as error:  # the verdict of a long run stands without them
            return replace(report, notes=(*report.notes, f"the weights of {departure.name} were not compared: {error}"))
        return replace(report, weights=weights, peak_bytes=peak_memory())

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
            sizes=golden_values.sizes_of(self.ours.config),
            prompts=tuple(prompts),
        )


def _weights_of(error: LayerError, source: Path, folder: Path) -> tuple[TensorCheck, ...]:
    prefixes = _TENSORS.get(error.name, (f"model.{error.name}.",))
    with open_checkpoint(source) as original, open_checkpoint(folder) as converted:
        return compare_weights(original, converted, prefixes=prefixes)


def _of_reference(versions: dict[str, str]) -> dict[str, str]:
    """The versions that the reference's values depend on; the others of a golden file are another machine's."""
    return {name: versions[name] for name in ("torch", "transformers")}
