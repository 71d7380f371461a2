"""A verdict by logits, with or without layers: first the reference runs, then our side is compared with it.

The two sides never alternate: their thread pools would compete for the cores, and both sets of weights would be in
memory.
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
from msport.progress import Phases
from msport.sizing.process import peak_memory
from msport.validate import golden as golden_values
from msport.validate.checks import notes_on, notes_on_config
from msport.validate.compare.layers import first_departure
from msport.validate.compare.weights import TensorCheck, compare_weights
from msport.validate.findings import Setup
from msport.validate.golden import Golden
from msport.validate.memory import narrowed_to, too_large, weight_dtype, weight_nbytes
from msport.validate.operations import tensors_of
from msport.validate.port.choice import Ours
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter, noise_name, noise_tensors, read_noise
from msport.validate.reference.loading import load_reference, memory_errors, reference_versions, steps_of
from msport.validate.reference.noise import Noise, NoisePlan, noise_lengths
from msport.validate.report import Report
from msport.validate.sides import PREFILL_CHUNK, Outcome, Request, judge_loaded, judge_streamed
from msport.validate.verdict.rules import LARGEST_FACTOR
from msport.validate.verdict.tolerance import (
    SIGNIFICAND,
    Dtypes,
    check_reachable,
    default_tolerance,
    explain_rounding,
    rounding,
    unit,
)


@dataclass
class Judge:
    """Everything that a verdict needs except the reference.

    If `tolerance` is None, the dtypes and the noise decide; if `stream` is None, the memory decides. `rule` is one of
    `RULES`. `given`: the prompts are not the default ones.
    """

    setup: Setup
    ours: Ours
    manifest: Manifest
    tolerance: float | None
    rule: str
    stream: bool | None
    phases: Phases
    given: bool

    def by_source(self, source: Source, prompts: tuple[Prompt, ...], reference_dtype: str, save: Path | None) -> Report:
        """Runs the reference first; its values are also saved to `save`, if given."""
        if self.stream is None:  # the reference decodes what we may keep packed
            self.stream = too_large(weight_nbytes(load_config(self.ours.folder), "float32"))
        check_reachable(self.tolerance, self.ours.dtype, reference_dtype)
        versions = reference_versions()
        stored = narrowed_to(source.folder, self.manifest)
        plan = self._plan(prompts, reference_dtype, stored, every_dtype=save is not None)
        with self._recorded(source.folder, prompts, reference_dtype, plan) as (recording, noise):
            if save is not None:
                with self.phases.phase("save reference"):
                    made = self._golden(source, prompts, reference_dtype, stored, versions)
                    golden_values.save_golden(recording, save, made)
            request = self._request(prompts, reference_dtype, stored, noise)
            outcome = self._run(recording, request)
        notes = notes_on_config(self.ours.folder, source)
        report = self._report(outcome, request, weight_dtype(source.folder), versions, notes)
        return self._with_weights(report, source)

    def by_golden(self, path: Path, golden: Golden) -> Report:
        """Compares with golden values, which a reference computed elsewhere."""
        if self.stream is None:
            self.stream = too_large(weight_nbytes(self.ours.config, self.ours.dtype))
        check_reachable(self.tolerance, self.ours.dtype, golden.dtype)
        if self.setup.level == "layers" and golden.level != "layers":
            raise UsageError(f"{path}: was saved without operations; save it again with {parameter('level')} layers")
        with Recording(path) as recording:
            noise = read_noise(recording, self.ours.dtype, len(golden.prompts))
            request = self._request(golden.prompts, golden.dtype, golden.stored, (noise,))
            outcome = self._run(recording, request)
        notes = ["weights were not compared: golden values hold none; see --level weights"]
        if golden.checkpoint != self.setup.checkpoint:
            notes.append("the golden values were saved beside another conversion: weights may be rounded otherwise")
        return self._report(outcome, request, golden.source_dtype, golden.versions, notes)

    def _plan(
        self, prompts: Sequence[Prompt], reference_dtype: str, stored: str | None, *, every_dtype: bool
    ) -> NoisePlan | None:
        """The plan of the noise to measure. Golden values need the noise of every dtype."""
        if self.rule != "rounding" and not every_dtype:
            return None
        return NoisePlan(
            lengths=noise_lengths([len(prompt.ids) for prompt in prompts]),
            dtypes=tuple(SIGNIFICAND) if every_dtype else (self.ours.dtype,),
            reference=reference_dtype,
            stored=stored,
            seed=self.setup.seed,
        )

    def _request(
        self, prompts: tuple[Prompt, ...], reference_dtype: str, stored: str | None, noise: Sequence[Noise]
    ) -> Request:
        """`stored` is the dtype that the conversion rounded weights to, None where it kept them."""
        own = next((each for each in noise if each.dtype == self.ours.dtype), None)
        tolerance = self.tolerance
        if tolerance is None:
            tolerance = default_tolerance(self.ours.dtype, reference_dtype)
            if own is not None:  # a default tolerance is never below rounding
                tolerance = max(tolerance, LARGEST_FACTOR * float(own.of("relative_l2").max(initial=0.0)))
        threshold = rounding(self.ours.dtype, reference_dtype, stored or reference_dtype)
        noise_of_rule = own if self.rule == "rounding" else None
        return Request(prompts, noise_of_rule, tolerance, threshold, reference_dtype, self.setup.level)

    @contextmanager
    def _recorded(
        self, source: Path, prompts: Sequence[Prompt], dtype: str, plan: NoisePlan | None
    ) -> Iterator[tuple[Recording, tuple[Noise, ...]]]:
        config = self.ours.config
        with TemporaryDirectory(prefix="msport-validate-") as scratch:
            folder = Path(scratch)
            with memory_errors(), RecordingWriter(folder, prompts, config.vocab_size) as writer:
                with self.phases.phase("load reference"):
                    reference = self._load(source, dtype)
                with self.phases.phase("run reference", steps_of(config.num_hidden_layers)) as advance:
                    every = self.setup.level == "layers"
                    noise = reference.record(prompts, writer, every_operation=every, noise=plan, advance=advance)
                    for each in noise:
                        writer.add(noise_name(each.dtype), noise_tensors(each))
                reference.close()
            with Recording(folder) as recording:
                yield recording, noise

    def _load(self, source: Path, dtype: str) -> Any:
        if not self.stream:
            return load_reference(source, dtype)
        from msport.validate.reference.streaming import stream_reference

        return stream_reference(source, dtype)

    def _run(self, recording: Recording, request: Request) -> Outcome:
        run = judge_streamed if self.stream else judge_loaded
        return run(self.ours, recording, request, self.phases)

    def _report(
        self,
        outcome: Outcome,
        request: Request,
        source_dtype: str,
        versions: dict[str, str],
        notes: Sequence[str],
    ) -> Report:
        ours, reference_dtype = self.ours, request.reference_dtype
        longest = max(len(prompt.ids) for prompt in request.prompts)
        setup = replace(
            self.setup,
            tolerance=request.tolerance,
            rule=self.rule,
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
        stored = source_dtype if self.manifest.dtype == "mxfp4" else self.manifest.dtype  # packed is as it came
        dtypes = Dtypes(source_dtype, stored, ours.dtype, reference_dtype)
        largest = max(float(result.errors.relative_l2.max()) for result in outcome.results)
        alone = [o.largest for error in outcome.layers for o in error.operations if not o.departs]
        judgement = outcome.judgement
        return Report(
            setup,
            tuple(replace(r, failing=f) for r, f in zip(outcome.results, judgement.failing, strict=True)),
            judgement,
            request.noise,
            outcome.layers,
            first_departure(outcome.layers, self._thresholds(request)),
            request.threshold,
            notes=(
                *notes,
                *notes_on(ours.config, longest, PREFILL_CHUNK, streamed=bool(self.stream), given=self.given),
            ),
            seconds=self.phases.seconds,
            rounding=explain_rounding(dtypes, largest, alone, request.noise),
            peak_bytes=peak_memory(),
        )

    def _thresholds(self, request: Request) -> tuple[float, ...]:
        """The largest drift that each station's residual stream may have."""
        constant = min(request.threshold, request.tolerance)
        if request.noise is None:
            return (constant,)
        return tuple(min(constant, LARGEST_FACTOR * max(drift, unit(self.ours.dtype))) for drift in request.noise.drift)

    def _with_weights(self, report: Report, source: Source) -> Report:
        """`report` with the comparison of weights.

        Compares all weights, because the logits of some prompts use few rows of an embedding. With the rule
        ``tolerance`` only those of the layer that departs, to tell wrong weights from a wrong computation.
        """
        departure = report.departure
        if self.rule == "rounding":
            prefixes: tuple[str, ...] = ("",)
        elif departure is None or departure.first_operation is None:
            return report
        else:
            prefixes = tensors_of(departure.name)
        try:
            weights = self._compare_weights(source.folder, prefixes)
        except MsportError as error:  # the verdict of a long run is still valid without them
            return replace(report, notes=(*report.notes, f"the weights were not compared: {error}"))
        return replace(report, weights=weights, peak_bytes=peak_memory())

    def _compare_weights(self, source: Path, prefixes: tuple[str, ...]) -> tuple[TensorCheck, ...]:
        with open_checkpoint(source) as original, open_checkpoint(self.ours.folder) as converted:
            total = sum(t.nbytes for name, t in converted.tensors.items() if name.startswith(prefixes))
            with self.phases.phase("compare weights", total) as advance:
                return compare_weights(original, converted, advance, prefixes=prefixes)

    def _golden(
        self,
        source: Source,
        prompts: Sequence[Prompt],
        reference_dtype: str,
        stored: str | None,
        versions: dict[str, str],
    ) -> Golden:
        return Golden(
            source=source.id,
            revision=source.revision,
            checkpoint=self.setup.checkpoint,
            level=self.setup.level,
            dtype=reference_dtype,
            source_dtype=weight_dtype(source.folder),
            stored=stored,
            seed=self.setup.seed,
            versions=self.setup.versions | versions,
            sizes=golden_values.sizes_of(self.ours.config),
            prompts=tuple(prompts),
        )


def _of_reference(versions: dict[str, str]) -> dict[str, str]:
    """The versions on which the reference's values depend; other versions in a golden file are of another machine."""
    return {name: versions[name] for name in ("torch", "transformers")}
