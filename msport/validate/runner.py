"""Judges a converted checkpoint. All arguments are checked before anything long begins.

A run goes one way: the request, the results of the reference, the errors of our side, the verdict, the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msport.architectures import ModelConfig, load_config
from msport.arguments import checked
from msport.checkpoint import Manifest, open_checkpoint, read_manifest
from msport.checkpoint.manifest import checkpoint_hash
from msport.errors import MsportError, UsageError, parameter
from msport.hub import Source, find_reference
from msport.progress import Phases, Progress
from msport.sizing.costs import PREFILL_CHUNK
from msport.sizing.process import peak_memory
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.compare.weights import compare_weights
from msport.validate.findings import Setup, own_versions
from msport.validate.golden import check_new, is_golden, read_golden, save_golden
from msport.validate.operations import tensors_of
from msport.validate.port.choice import choose_port
from msport.validate.precision import SIGNIFICAND, narrowed_to, weight_dtype
from msport.validate.prompts import choose_prompts
from msport.validate.quantisation import check_quantised, encodings_of, find_source, is_quantised, plan_cost
from msport.validate.recording import Recording
from msport.validate.reference.cost import CostPlan
from msport.validate.reference.loading import check_reference_installed, reference_versions
from msport.validate.reference.noise import read_noise
from msport.validate.reference.run import ReferenceRun, ReferenceValues, run_reference
from msport.validate.report import Report
from msport.validate.request import Level, Request, Rule, check_no_effect, check_request, check_same_sizes, sizes_of
from msport.validate.stages import run_and_judge
from msport.validate.verdict.limits import check_reachable
from msport.validate.views.notes import notes_on_config

_OF_PROMPTS = ("prompts", "max_length", "save_reference")
_OF_QUANTISATION = ("original", "text", "max_kl")
_OF_RUNNING = ("dtype", "stream", "reference_dtype", "seed", "tol", "rule")


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
    original: str | Path | None = None,
    text: str | Path | None = None,
    max_kl: float | None = None,
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

    A folder with int4 or int8 weights is compared with the reference on the same quantised weights, and these with
    their source. What quantisation costs is measured beside `original`, a folder or Hub id (None: the source, if it is
    a folder here), on the beginning of the file `text`, else on given or default texts. The model fails if the mean KL
    divergence, in nats, is above `max_kl`; None: it is not judged.

    Raises `MissingDependencyError` without torch and Transformers, and other subclasses of `MsportError` if the model
    cannot be judged.
    """
    request = Request(
        Path(folder),
        reference,
        tol,
        level,
        rule,
        dtype,
        reference_dtype,
        stream,
        prompts,
        max_length,
        seed,
        None if save_reference is None else Path(save_reference),
        original,
        None if text is None else Path(text),
        max_kl,
    )
    check_request(request)
    phases = Phases(progress)
    manifest = read_manifest(request.folder)
    if is_golden(reference):
        report = _judge_by_golden(request, Path(str(reference)), manifest, phases)
    elif level == "weights":
        report = _judge_weights(request, manifest, phases)
    else:
        report = _judge_by_source(request, manifest, phases)
    return replace(report, seconds=phases.seconds, peak_bytes=peak_memory())


def _judge_by_source(request: Request, manifest: Manifest, phases: Phases) -> Report:
    """Runs the reference and the port, and compares the weights with their source."""
    if request.prompts is not None:
        check_no_effect(request, "given prompts need no random numbers", "seed")
    check_reference_installed()
    if request.save_reference is not None:
        check_new(request.save_reference)
    config = load_config(request.folder)
    prompts = choose_prompts(request.folder, config, request.prompts, PREFILL_CHUNK, request.max_length, request.seed)
    longest = max(len(prompt.ids) for prompt in prompts)
    widest = "float32" if request.reference_dtype == "model" else request.reference_dtype
    port = choose_port(request.folder, request.dtype, request.stream, tokens=longest, reference_dtype=widest)
    quantised = is_quantised(request.folder)
    check_quantised(request, quantised=quantised)
    source, theirs, plan, uncosted = _find_sources(request, config, manifest, quantised=quantised)
    setup = replace(_setup(request, config, manifest, theirs.id, request.seed), own_weights=quantised)
    source_dtype = weight_dtype(theirs.folder)
    run = ReferenceRun(
        source=theirs.id,
        revision=theirs.revision,
        checkpoint=setup.checkpoint,
        level=request.level,
        dtype=source_dtype if request.reference_dtype == "model" else request.reference_dtype,
        source_dtype=source_dtype,
        narrowed_to=narrowed_to(theirs.folder, manifest),
        seed=request.seed,
        versions=setup.versions | reference_versions(),
        sizes=sizes_of(config),
        prompts=prompts,
    )
    check_reachable(request.tol, port.dtype, run.dtype)
    dtypes = [port.dtype] if request.rule == "rounding" else []
    if request.save_reference is not None:  # golden values need the noise of every dtype
        dtypes = list(SIGNIFICAND)
    with run_reference(theirs.folder, run, dtypes, phases, streamed=port.streamed, cost=plan) as results:
        if request.save_reference is not None:
            with phases.phase("save reference"):
                save_golden(results.recording, request.save_reference, run)
        noise = next((each for each in results.noises if each.dtype == port.dtype), None)
        report = run_and_judge(request, setup, port, ReferenceValues(run, results.recording, noise), phases)
    report = replace(report, notes=(*report.notes, *uncosted), cost=results.cost)
    if source is None:
        note = f"weights were not compared: their source {manifest.source} is no folder here; see --reference"
        return replace(report, notes=(*report.notes, note))
    report = replace(report, notes=(*notes_on_config(request.folder, source), *report.notes))
    return _with_weights(report, source, phases)


def _find_sources(
    request: Request, config: ModelConfig, manifest: Manifest, *, quantised: bool
) -> tuple[Source | None, Source, CostPlan | None, tuple[str, ...]]:
    """What the weights are compared with, what the reference runs, and how the cost of quantisation is measured, or a
    note on why it is not.

    The reference of a quantised folder runs its own weights: those of the source would hide faults behind the cost.
    """
    if not quantised:
        source = find_reference(request.reference, manifest.source, manifest.revision)
        check_same_sizes(request.folder, source)
        return source, source, None, ()
    found = find_source(request, manifest)
    if found is not None:
        check_same_sizes(request.folder, found)
    plan, why_not = plan_cost(request, config, found)
    return found, Source(request.folder, str(request.folder)), plan, () if plan else (why_not,)


def _judge_by_golden(request: Request, path: Path, manifest: Manifest, phases: Phases) -> Report:
    """Runs the port and compares it with the golden values in `path`, which a reference computed elsewhere."""
    if request.level == "weights":
        raise UsageError(
            f"{path} holds golden values, no weights; name the original checkpoint by {parameter('reference')}"
        )
    config = load_config(request.folder)
    run = read_golden(path, config)
    others = {"reference_dtype": run.dtype, "seed": run.seed}
    names = [*_OF_PROMPTS, *(name for name, value in others.items() if getattr(request, name) != value)]
    check_no_effect(
        request, f"{path} holds golden values of its own prompts, seed and dtype", *names, *_OF_QUANTISATION
    )
    setup = _setup(request, config, manifest, str(path), run.seed)
    port = choose_port(request.folder, request.dtype, request.stream, tokens=run.longest)
    check_reachable(request.tol, port.dtype, run.dtype)
    if request.level == "layers" and run.level != "layers":
        raise UsageError(f"{path}: was saved without operations; save it again with {parameter('level')} layers")
    with Recording(path) as recording:
        noise = read_noise(recording, port.dtype, len(run.prompts))
        report = run_and_judge(request, setup, port, ReferenceValues(run, recording, noise), phases)
    notes = ["weights were not compared: golden values hold none; see --level weights"]
    if run.checkpoint != setup.checkpoint:
        notes.append("the golden values were saved beside another conversion: weights may be rounded otherwise")
    return replace(report, notes=(*notes, *report.notes))


def _judge_weights(request: Request, manifest: Manifest, phases: Phases) -> Report:
    """Compares the weights with their source without running the model."""
    check_no_effect(
        request, f"{parameter('level')} weights does not run the model", *_OF_PROMPTS, *_OF_RUNNING, *_OF_QUANTISATION
    )
    source = find_reference(request.reference, manifest.source, manifest.revision)
    check_same_sizes(request.folder, source)
    setup = _setup(request, load_config(request.folder), manifest, source.id, request.seed)
    weights = _compare_weights(request.folder, source, ("",), phases)
    return Report(setup, weights=weights, notes=notes_on_config(request.folder, source))


def _setup(request: Request, config: ModelConfig, manifest: Manifest, reference: str, seed: int) -> Setup:
    return Setup(
        folder=str(request.folder),
        architecture=config.architecture,
        source=manifest.source,
        revision=manifest.revision,
        checkpoint=checkpoint_hash(manifest),
        reference=reference,
        level=request.level,
        rule=request.rule,
        tolerance=0.0,
        seed=seed,
        date=request.date,
        versions=own_versions(),
        encodings=encodings_of(request.folder),
    )


def _with_weights(report: Report, source: Source, phases: Phases) -> Report:
    """`report` with the comparison of weights.

    Compares all weights, because the logits of some prompts use few rows of an embedding. With the rule ``tolerance``
    only those of the layer that departs, to tell wrong weights from a wrong computation.
    """
    departure = report.departure
    if report.setup.rule == "rounding":
        prefixes: tuple[str, ...] = ("",)
    elif departure is None or departure.first_operation is None:
        return report
    else:
        prefixes = tensors_of(departure.name)
    try:
        weights = _compare_weights(Path(report.setup.folder), source, prefixes, phases)
    except MsportError as error:  # the verdict of a long run is still valid without them
        return replace(report, notes=(*report.notes, f"the weights were not compared: {error}"))
    return replace(report, weights=weights)


def _compare_weights(
    folder: Path, source: Source, prefixes: tuple[str, ...], phases: Phases
) -> tuple[TensorCheck, ...]:
    with open_checkpoint(source.folder) as original, open_checkpoint(folder) as converted:
        total = sum(tensor.nbytes for name, tensor in converted.tensors.items() if name.startswith(prefixes))
        with phases.phase("compare weights", total) as advance:
            return compare_weights(original, converted, advance, prefixes=prefixes)
