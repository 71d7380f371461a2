"""Runs our side and measures its errors: the model as a user runs it, and its layers one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.progress import Phases
from msport.sizing.costs import PREFILL_CHUNK
from msport.validate.compare.layers import LayerError, LayerValues, compare_embedding, compare_head, compare_layer
from msport.validate.compare.logits import batched_rows, compare_batch, compare_logits, compare_path, tokens_to_compare
from msport.validate.compare.metrics import Bools
from msport.validate.compare.results import PromptResult
from msport.validate.compare.routing import near_ties
from msport.validate.operations import ATTENDED, CHOSEN, OUTPUT, ROUTER
from msport.validate.port.choice import Port
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, layer_name
from msport.validate.reference.run import ReferenceValues

if TYPE_CHECKING:
    from msport.msmodels.model import LanguageModel
    from msport.validate.port.blocks import HeadRunner, InMemory
    from msport.validate.port.streamed import Streamed

    Blocks = InMemory | Streamed


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of layers: the results of the reference for `prompts` in each of the `layers` are in `recording`.

    An operation departs if its relative L2 error exceeds `operation`. `router` holds, for each layer, the error of the
    router's logits that rounding explains; it is empty if there is no limit.
    """

    recording: Recording
    prompts: Sequence[Prompt]
    layers: int
    operation: float
    router: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """The errors of our side on `device` with `operators`.

    `results` are those of the logits. `layers` is empty if no layer was compared. `undecided` maps the number of a
    prompt to bool ``[tokens]``, which marks the tokens whose experts nearly tie in some layer.
    """

    device: str
    operators: str
    results: tuple[PromptResult, ...]
    layers: tuple[LayerError, ...] = ()
    undecided: Mapping[int, Bools] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Our own residual stream of `prompt` on its way through the layers, ``states [tokens, hidden]``.

    `tail`: the last tokens again, run one at a time over a cache of those before them, ``[decoded, hidden]``; None if
    they are not decoded.
    """

    prompt: Prompt
    states: Array
    tail: Array | None = None

    @property
    def prefilled(self) -> int:
        """The number of tokens before `tail`."""
        return len(self.prompt.ids) - self.prompt.decoded


@dataclass(frozen=True, slots=True)
class Walk:
    """The errors at each station, the near ties as in `Measured`, and the trajectories after the last layer."""

    stations: tuple[LayerError, ...]
    undecided: Mapping[int, Bools]
    trajectories: tuple[Trajectory, ...]


def measure_logits(model: LanguageModel, reference: ReferenceValues, phases: Phases) -> Measured:
    """The errors of the logits of `model`, run as a user runs it: each prompt alone, and several in a batch."""
    prompts, recording = reference.run.prompts, reference.recording
    rows = batched_rows(prompts)
    with phases.phase("run model", tokens_to_compare(prompts, rows)) as advance:
        results = compare_logits(model, recording, prompts, advance)
        if rows:
            from msport.validate.port.sharing import with_batch

            batch = with_batch(model, len(rows), max(len(row.ids) for row in rows))
            results += compare_batch(batch, recording, prompts, rows, advance)
    return Measured(model.device, model.operators, results)


def measure_layers(model: LanguageModel, measured: Measured, comparison: Comparison, phases: Phases) -> Measured:
    """`measured`, with the errors of the layers of `model`."""
    from msport.validate.port.blocks import InMemory

    with phases.phase("compare layers", comparison.layers + 2) as advance:
        blocks = InMemory(model.graphs.network, model.graphs.cache, model.config.hidden_size)
        walk = walk_layers(blocks, comparison, advance)
        with blocks.head() as head:
            last = measure_head(head, comparison, measured.results)
    return replace(measured, layers=(*walk.stations, last), undecided=walk.undecided)


def measure_streamed(port: Port, comparison: Comparison, phases: Phases) -> Measured:
    """The errors of logits and layers, with one layer in memory at a time.

    Runs prefill and decode of each prompt, and the isolated blocks, but no batch.
    """
    from msport.validate.port.streamed import Streamed

    recording = comparison.recording
    with phases.phase("run model by layers", comparison.layers + 2) as advance:
        blocks = Streamed(port, max(len(prompt.ids) for prompt in comparison.prompts), PREFILL_CHUNK)
        walk = walk_layers(blocks, comparison, advance, decode=True)
        with blocks.head() as head:
            results = tuple(result for each in walk.trajectories for result in _logits_after(each, head, recording))
            last = measure_head(head, comparison, results)
        blocks.close()
        advance(1)
    return Measured(blocks.device, blocks.operators, results, (*walk.stations, last), walk.undecided)


def walk_layers(
    blocks: Blocks,
    comparison: Comparison,
    advance: Callable[[int], None] = lambda stations: None,
    *,
    decode: bool = False,
) -> Walk:
    """Runs the prompts through the embedding and all layers; with `decode` also their last tokens one at a time."""
    recording, operation = comparison.recording, comparison.operation
    with blocks.embedding() as embed:
        trajectories = tuple(Trajectory(each, embed(np.array(each.ids, np.int32))) for each in comparison.prompts)
    if decode:
        trajectories = tuple(replace(t, tail=t.states[t.prefilled :]) if t.prompt.decoded else t for t in trajectories)
    embedded = [(each.prompt, recording.hidden_states(each.prompt.number, 0), each.states) for each in trajectories]
    stations = [compare_embedding(embedded, operation)]
    advance(1)
    undecided: dict[int, Bools] = {}
    for index in range(comparison.layers):
        trajectories, values = _through_layer(blocks, index, recording, trajectories)
        stations.append(compare_layer(index, values, operation))
        for each in values:
            if each.routed:
                near = near_ties(each.reference, each.own, *comparison.router[index : index + 1])
                undecided[each.prompt.number] = near | undecided.get(each.prompt.number, False)
        advance(1)
    return Walk(tuple(stations), undecided, trajectories)


def measure_head(head: HeadRunner, comparison: Comparison, results: Sequence[PromptResult]) -> LayerError:
    """The error of the isolated final norm and `head`; `results` hold the errors of our own logits."""
    recording, prompts, layers = comparison.recording, comparison.prompts, comparison.layers
    chunks = [(prompt, head(recording.hidden_states(prompt.number, layers))) for prompt in prompts]
    own = {result.prompt.number: result.errors.relative_l2 for result in results if result.path == "prefill"}
    drift = [own[prompt.number] for prompt in prompts]
    return compare_head(layers + 1, chunks, recording, drift, comparison.operation)


def _through_layer(
    blocks: Blocks, index: int, recording: Recording, trajectories: Sequence[Trajectory]
) -> tuple[tuple[Trajectory, ...], list[LayerValues]]:
    """`trajectories` after layer `index`, and the results of both sides in it."""
    features = recording.features(index, trajectories[0].prompt.number)
    after, values = [], []
    with blocks.layer(index, features) as runner:
        for trajectory in trajectories:
            number = trajectory.prompt.number
            reference = {name: recording.read(layer_name(index, name, number)) for name in features}
            own = runner.run(trajectory.states)
            alone = runner.run(recording.hidden_states(number, index), reference[ATTENDED])
            kept = {name: own[name] for name in (OUTPUT, ROUTER, CHOSEN) if name in own}
            values.append(LayerValues(trajectory.prompt, reference, kept, alone))
            tail = trajectory.tail
            if tail is not None:
                tail = runner.decode(trajectory.states[: trajectory.prefilled], tail)
            after.append(replace(trajectory, states=own[OUTPUT], tail=tail))
    return tuple(after), values


def _logits_after(trajectory: Trajectory, head: HeadRunner, recording: Recording) -> Iterator[PromptResult]:
    """The errors of the logits of `trajectory`, which has passed the last layer."""
    paths = {"prefill": (0, trajectory.states), "decode": (trajectory.prefilled, trajectory.tail)}
    for path, (start, states) in paths.items():
        if states is not None:
            pieces = ((start + row, logits) for row, _, logits in head(states))
            yield compare_path(recording, trajectory.prompt, path, start, pieces)
