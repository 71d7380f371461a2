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
from msport.validate.verdict.limits import Limits

if TYPE_CHECKING:
    from msport.msmodels.model import LanguageModel
    from msport.validate.port.blocks import HeadRunner, InMemory
    from msport.validate.port.streamed import Streamed

    Blocks = InMemory | Streamed

# Prompts with their numbers in the recording.
Numbered = Sequence[tuple[int, Prompt]]


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
class Stream:
    """Our own residual stream of prompt `number`, ``states [tokens, hidden]``.

    `tail`: the last tokens again, run one at a time over a cache of those before them, ``[decoded, hidden]``; None if
    they are not decoded.
    """

    number: int
    prompt: Prompt
    states: Array
    tail: Array | None = None

    @property
    def prefilled(self) -> int:
        """The number of tokens before `tail`."""
        return len(self.prompt.ids) - self.prompt.decoded


@dataclass(frozen=True, slots=True)
class Walk:
    """The errors at each station, the near ties as in `Measured`, and the residual streams after the last layer."""

    stations: tuple[LayerError, ...]
    undecided: Mapping[int, Bools]
    streams: tuple[Stream, ...]


def measure_logits(model: LanguageModel, reference: ReferenceValues, phases: Phases) -> Measured:
    """The errors of the logits of `model`, run as a user runs it: each prompt alone, and several in a batch."""
    prompts, recording = reference.run.prompts, reference.recording
    with phases.phase("run model", tokens_to_compare(prompts)) as advance:
        results = compare_logits(model, recording, prompts, advance)
        if rows := batched_rows(prompts):
            from msport.validate.port.sharing import with_batch

            batch = with_batch(model, len(rows), max(len(row.ids) for row in rows))
            results += compare_batch(batch, recording, prompts, advance)
    return Measured(model.device, model.operators, results)


def measure_layers(
    model: LanguageModel,
    measured: Measured,
    recording: Recording,
    prompts: Numbered,
    limits: Limits,
    phases: Phases,
) -> Measured:
    """`measured`, with the errors of the layers of `model` for `prompts`."""
    from msport.validate.port.blocks import InMemory

    layers = model.config.num_hidden_layers
    with phases.phase("compare layers", layers + 2) as advance:
        blocks = InMemory(model.graphs.network, model.graphs.cache, model.config.hidden_size)
        walk = walk_layers(blocks, recording, prompts, layers, limits, advance)
        with blocks.head() as head:
            last = measure_head(head, recording, prompts, layers, measured.results, limits)
    return replace(measured, layers=(*walk.stations, last), undecided=walk.undecided)


def measure_streamed(port: Port, reference: ReferenceValues, limits: Limits, phases: Phases) -> Measured:
    """The errors of logits and layers, with one layer in memory at a time.

    Runs prefill and decode of each prompt, and the isolated blocks, but no batch.
    """
    from msport.validate.port.streamed import Streamed

    run, recording = reference.run, reference.recording
    prompts, layers = tuple(enumerate(run.prompts)), port.config.num_hidden_layers
    with phases.phase("run model by layers", layers + 2) as advance:
        blocks = Streamed(port, run.longest, PREFILL_CHUNK)
        walk = walk_layers(blocks, recording, prompts, layers, limits, advance, decode=True)
        with blocks.head() as head:
            results = tuple(result for stream in walk.streams for result in _logits_after(stream, head, recording))
            last = measure_head(head, recording, prompts, layers, results, limits)
        blocks.close()
        advance(1)
    return Measured(blocks.device, blocks.operators, results, (*walk.stations, last), walk.undecided)


def walk_layers(
    blocks: Blocks,
    recording: Recording,
    prompts: Numbered,
    layers: int,
    limits: Limits,
    advance: Callable[[int], None] = lambda stations: None,
    *,
    decode: bool = False,
) -> Walk:
    """Runs `prompts` through the embedding and all `layers`; with `decode` also their last tokens one at a time."""
    with blocks.embedding() as embed:
        streams = tuple(Stream(number, p, embed(np.array(p.ids, np.int32))) for number, p in prompts)
    if decode:
        streams = tuple(replace(s, tail=s.states[s.prefilled :]) if s.prompt.decoded else s for s in streams)
    embedded = [(stream.prompt, recording.hidden_states(stream.number, 0), stream.states) for stream in streams]
    stations = [compare_embedding(embedded, limits.operation)]
    advance(1)
    undecided: dict[int, Bools] = {}
    for index in range(layers):
        streams, values = _through_layer(blocks, index, recording, streams)
        stations.append(compare_layer(index, values, limits.operation))
        for stream, each in zip(streams, values, strict=True):
            if each.routed:
                near = near_ties(each.reference, each.own, *limits.router[index : index + 1])
                undecided[stream.number] = near | undecided.get(stream.number, False)
        advance(1)
    return Walk(tuple(stations), undecided, streams)


def measure_head(
    head: HeadRunner,
    recording: Recording,
    prompts: Numbered,
    layers: int,
    results: Sequence[PromptResult],
    limits: Limits,
) -> LayerError:
    """The error of the isolated final norm and `head`; `results` hold the errors of our own logits."""
    chunks = [(number, prompt, head(recording.hidden_states(number, layers))) for number, prompt in prompts]
    own = {result.prompt: result.errors.relative_l2 for result in results if result.path == "prefill"}
    drift = [own[prompt] for _, prompt in prompts]
    return compare_head(layers + 1, chunks, recording, drift, limits.operation)


def _through_layer(
    blocks: Blocks, index: int, recording: Recording, streams: Sequence[Stream]
) -> tuple[tuple[Stream, ...], list[LayerValues]]:
    """`streams` after layer `index`, and the results of both sides in it."""
    features = recording.features(index, streams[0].number)
    after, values = [], []
    with blocks.layer(index, features) as runner:
        for stream in streams:
            number = stream.number
            reference = {name: recording.read(layer_name(index, name, number)) for name in features}
            own = runner.run(stream.states)
            alone = runner.run(recording.hidden_states(number, index), reference[ATTENDED])
            kept = {name: own[name] for name in (OUTPUT, ROUTER, CHOSEN) if name in own}
            values.append(LayerValues(stream.prompt, reference, kept, alone))
            tail = stream.tail
            if tail is not None:
                tail = runner.decode(stream.states[: stream.prefilled], tail)
            after.append(replace(stream, states=own[OUTPUT], tail=tail))
    return tuple(after), values


def _logits_after(stream: Stream, head: HeadRunner, recording: Recording) -> Iterator[PromptResult]:
    """The errors of the logits of `stream`, which has passed the last layer."""
    paths = {"prefill": (0, stream.states), "decode": (stream.prefilled, stream.tail)}
    for path, (start, states) in paths.items():
        if states is not None:
            pieces = ((start + row, logits) for row, _, logits in head(states))
            yield compare_path(recording, stream.number, stream.prompt, path, start, pieces)
