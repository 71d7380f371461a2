"""One run of the reference: its results for all prompts, in a temporary folder, and their description."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msport.progress import Phases
from msport.validate.compare.cost import Cost
from msport.validate.operations import FINAL_NORM
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter
from msport.validate.reference.cost import CostPlan, measure_cost, record_texts
from msport.validate.reference.loading import Reference, load_reference, memory_errors
from msport.validate.reference.noise import Noise, NoisePlan, noise_lengths, noise_name, noise_tensors
from msport.validate.reference.rounded import noise_runs
from msport.validate.reference.walk import head_logits, walk


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """How a reference's results were made.

    `checkpoint` is the hash of the conversion with which they were made. `level` is ``layers`` if single operations
    are included, else only blocks and logits are. `dtype` is the reference's, `source_dtype` that of the Hub's weights,
    and `narrowed_to` the dtype to which the conversion rounded them, or None if it kept every value. A model that is
    compared with the results must have the same `sizes`.
    """

    source: str
    revision: str | None
    checkpoint: str
    level: str
    dtype: str
    source_dtype: str
    narrowed_to: str | None
    seed: int
    versions: dict[str, str]
    sizes: dict[str, Any]
    prompts: tuple[Prompt, ...]

    @property
    def longest(self) -> int:
        """Number of tokens of the longest prompt."""
        return max(len(prompt.ids) for prompt in self.prompts)


@dataclass(frozen=True, slots=True)
class ReferenceValues:
    """The results of the reference in `run`; `noise` is its own for our dtype, None if it was not measured."""

    run: ReferenceRun
    recording: Recording
    noise: Noise | None


@dataclass(frozen=True, slots=True)
class ReferenceResults:
    """The `recording` of a run, which includes the noise, the `noises` for each dtype in which our side may compute,
    and the `cost` of quantisation if it was measured.
    """

    recording: Recording
    noises: tuple[Noise, ...]
    cost: Cost | None = None


@contextmanager
def run_reference(
    source: Path,
    run: ReferenceRun,
    dtypes: Sequence[str],
    phases: Phases,
    *,
    streamed: bool,
    cost: CostPlan | None = None,
) -> Iterator[ReferenceResults]:
    """Runs the checkpoint in `source` as `run` says; if `streamed`, with one layer in memory at a time.

    Yields the results, whose recording lasts as long as the context, with the noise for each of `dtypes`; with `cost`,
    also what quantisation costs.
    """
    lengths = noise_lengths([len(prompt.ids) for prompt in run.prompts])
    plan = NoisePlan(lengths, tuple(dtypes), run.dtype, run.narrowed_to, run.seed) if dtypes else None
    with TemporaryDirectory(prefix="msport-validate-") as scratch:
        folder, text_folder = Path(scratch, "prompts"), Path(scratch, "texts")
        folder.mkdir()
        text_folder.mkdir()
        with memory_errors(), RecordingWriter(folder, run.prompts, run.sizes["vocab_size"]) as writer:
            with phases.phase("load reference"):
                reference = _load(source, run.dtype, streamed=streamed)
            if cost is not None:  # before the noise, which modifies weights
                record_texts(reference, cost, text_folder, run.sizes, phases)
            with phases.phase("run reference", steps_of(run.sizes["num_hidden_layers"])) as advance:
                every = run.level == "layers"
                noise = record(reference, run.prompts, writer, every_operation=every, noise=plan, advance=advance)
                for each in noise:
                    writer.add(noise_name(each.dtype), noise_tensors(each))
            reference.close()
        measured = None
        if cost is not None:
            with memory_errors():
                with phases.phase("load original"):
                    original = _load(cost.folder, run.dtype, streamed=streamed)
                measured = measure_cost(original, cost, text_folder, run.sizes["num_hidden_layers"], phases)
                original.close()
        with Recording(folder) as recording:
            yield ReferenceResults(recording, noise, measured)


def _load(source: Path, dtype: str, *, streamed: bool) -> Reference:
    if not streamed:
        return load_reference(source, dtype)
    from msport.validate.reference.streaming import stream_reference

    return stream_reference(source, dtype)


def record(
    reference: Reference,
    prompts: Sequence[Prompt],
    writer: RecordingWriter,
    *,
    every_operation: bool = False,
    chunk: int | None = None,
    noise: NoisePlan | None = None,
    advance: Callable[[int], None] = lambda steps: None,
) -> tuple[Noise, ...]:
    """Writes the residual stream, optionally the operations, and the logits of `prompts`; see `walk` for `chunk`.

    With `noise`, a second run measures how much rounding changes the reference, once for each dtype of the plan; this
    modifies the model's weights. `advance` is called once for the embedding, each layer, the final norm and the head.
    """
    model, provide = reference.model, reference.provide
    normed: dict[int, Any] = {}
    ids = [prompt.ids for prompt in prompts]
    runs = [] if noise is None else noise_runs(noise, model, ids)
    for passed in walk(model, ids, provide, every_operation=every_operation, chunk=chunk):
        writer.add(passed.part, passed.tensors)
        if passed.part == FINAL_NORM:
            normed = dict(enumerate(passed.tensors.values()))
        for run in runs:
            run.follow(passed)
        advance(1)
    for number, start, logits in head_logits(model, normed, provide):
        writer.add_logits(number, start, logits)
        for run in runs:
            run.measure(number, start, logits)
    advance(1)
    return tuple(run.result() for run in runs)


def steps_of(layers: int) -> int:
    """Number of steps that `record` reports for a model with this many layers."""
    return layers + 3
