"""Compares layers: every block isolated, with the reference's input, and along our own trajectory.

In an isolated block no earlier error carries over: attention gets the reference's residual stream, and the feed-forward
gets the reference's stream after attention. The fault is in the first operation that departs. Along our own trajectory
errors carry over, as in the model that a user runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.validate import operations
from msport.validate.compare.departure import describe_departure
from msport.validate.compare.metrics import Bools, Floats, relative_l2
from msport.validate.compare.routing import RoutingCheck, add_routing, check_routing, near_ties
from msport.validate.operations import (
    ATTENDED,
    CHOSEN,
    DOWN_PROJ,
    EMBEDDING,
    EXPERTS,
    FINAL_NORM,
    HEAD,
    O_PROJ,
    OPERATIONS,
    OUTPUT,
    ROUTER,
)
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, layer_name

if TYPE_CHECKING:
    from msport.validate.port.blocks import Blocks, HeadRunner, LayerRunner


_STANDS_OUT = 5.0
# If an operation departs, the fault is in the first operation before it with an error above this fraction of the
# threshold: a small error of a norm grows in attention.
_EARLIER = 5.0


@dataclass(frozen=True, slots=True)
class OperationError:
    """Relative L2 error of one operation of an isolated block, over all tokens; the largest is at `prompt`, `position`.

    `how` describes the departure in words; it is empty if the error is within rounding.
    """

    name: str
    largest: float
    mean: float
    prompt: str
    position: int
    how: str = ""

    @property
    def departs(self) -> bool:
        return bool(self.how)


@dataclass(frozen=True, slots=True)
class LayerError:
    """The errors at one station of the residual stream, `name`: the embedding, a layer, or the head.

    `largest` and `mean` are relative L2 errors of our own trajectory after it (of the logits, for the head); the
    largest is at `prompt`, `position`. `operations` are those of the isolated block, in order.
    """

    layer: int
    name: str
    largest: float
    mean: float
    prompt: str
    position: int
    operations: tuple[OperationError, ...] = ()
    routing: RoutingCheck | None = None

    @property
    def first_operation(self) -> OperationError | None:
        """The first operation of the isolated block that departs."""
        return next((operation for operation in self.operations if operation.departs), None)

    @property
    def attention(self) -> float | None:
        """The error of the isolated attention; of its output, if that was recorded."""
        return self._of(O_PROJ, ATTENDED)

    @property
    def feed_forward(self) -> float | None:
        """The error of the isolated feed-forward; at the last station, of the head."""
        return self._of(EXPERTS, DOWN_PROJ, OUTPUT, HEAD)

    def _of(self, *names: str) -> float | None:
        found = {operation.name: operation.largest for operation in self.operations}
        return next((found[name] for name in names if name in found), None)


Numbered = Sequence[tuple[int, Prompt]]
AfterLayer = Callable[["LayerRunner"], None]


class LayerComparison:
    """Compares `blocks` with a recording of `prompts`, which are keyed by their numbers in it.

    An operation departs if its error exceeds `threshold`. `trajectory` holds our own residual stream of each prompt
    after the layer that has just run, `entering` the stream before it. `undecided` marks the tokens of each prompt with
    near ties of experts in the layers so far. `router_error` is, for each layer, the error of the router's logits that
    rounding explains.
    """

    def __init__(
        self,
        blocks: Blocks,
        recording: Recording,
        prompts: Numbered,
        threshold: float,
        router_error: Sequence[float] = (),
    ) -> None:
        self._blocks = blocks
        self._recording = recording
        self._prompts = prompts
        self._threshold = threshold
        self._router_error = router_error
        self.trajectory: dict[int, Array] = {}
        self.entering: dict[int, Array] = {}
        self.undecided: dict[int, Bools] = {}

    def run(self, layers: int, after_layer: AfterLayer = lambda runner: None) -> Iterator[LayerError]:
        """The error of the embedding and of each of `layers` layers. `after_layer` is called with the index of each
        finished layer.
        """
        yield self._embedding()
        for index in range(layers):
            with self._blocks.layer(index, self._features(index)) as runner:
                error = self._layer(index, runner)
                after_layer(runner)
            yield error

    def head(self, layers: int, head: HeadRunner, drift: list[Floats]) -> LayerError:
        """The error of the final norm and the `head`, fed with the reference's residual stream.

        `drift` holds the relative L2 errors of our own logits of each prompt.
        """
        isolated: dict[str, list[Floats]] = {FINAL_NORM: [], HEAD: []}
        how = {FINAL_NORM: "", HEAD: ""}
        for number, _prompt in self._prompts:
            errors: dict[str, list[Floats]] = {FINAL_NORM: [], HEAD: []}
            for start, normed, logits in head(self._recording.hidden_states(number, layers)):
                end = start + len(logits)
                pairs = {
                    FINAL_NORM: (self._recording.read(f"{FINAL_NORM}.{number}", start, end), normed),
                    HEAD: (self._recording.logits(number, start, end), logits),
                }
                for name, (reference, ours) in pairs.items():
                    error = relative_l2(reference, ours)
                    errors[name].append(error)
                    how[name] = how[name] or describe_departure(reference, ours, error, self._threshold, start)
            for name, pieces in errors.items():
                isolated[name].append(np.concatenate(pieces))
        found = tuple(self._operation(name, isolated[name], how[name]) for name in isolated)
        return self._error(layers + 1, HEAD, drift, found)

    def _features(self, layer: int) -> Mapping[str, int]:
        """The operations of `layer` in the recording, and how wide each is."""
        number = self._prompts[0][0]
        names = self._recording.operations(layer, number)
        return {name: self._recording.shape(layer_name(layer, name, number))[1] for name in names}

    def _embedding(self) -> LayerError:
        drift, how = [], ""
        with self._blocks.embedding() as embed:
            for number, prompt in self._prompts:
                states = embed(np.array(prompt.ids, np.int32))
                reference = self._recording.hidden_states(number, 0)
                error = relative_l2(reference, states)
                how = how or describe_departure(reference, states, error, self._threshold)
                self.trajectory[number] = states
                drift.append(error)
        return self._error(0, EMBEDDING, drift, (self._operation(EMBEDDING, drift, how),))

    def _layer(self, index: int, runner: LayerRunner) -> LayerError:
        recorded = self._features(index)
        names = [name for name in OPERATIONS if name in recorded]
        drift: list[Floats] = []
        isolated: dict[str, list[Floats]] = {name: [] for name in names}
        pairs: list[dict[str, tuple[Array, Array]]] = []
        missing: frozenset[str] = frozenset()
        routing: RoutingCheck | None = None
        self.entering = dict(self.trajectory)
        for number, _prompt in self._prompts:
            reference = {name: self._recording.read(layer_name(index, name, number)) for name in names}
            own, present = runner.run(self.trajectory[number])
            drift.append(relative_l2(reference[OUTPUT], own[OUTPUT]))
            self.trajectory[number] = own[OUTPUT]
            given = self._recording.hidden_states(number, index)
            alone, _ = runner.run(given, reference[ATTENDED])
            missing = frozenset(names) - present
            explained = np.zeros(len(given), bool)
            if {ROUTER, CHOSEN} <= present & reference.keys():
                check, explained = check_routing(reference, own, alone)
                routing = add_routing(routing, check)
                near = near_ties(reference, own, self._router_error[index] if self._router_error else np.inf)
                self.undecided[number] = self.undecided.get(number, np.zeros(len(near), bool)) | near
            pairs.append({name: (reference[name], alone[name]) for name in names if name not in missing})
            for name, (theirs, ours) in pairs[-1].items():
                isolated[name].append(_operation_error(name, theirs, ours, explained))
        found = []
        for name in names:
            if name in missing:
                found.append(
                    OperationError(
                        name, np.inf, np.inf, self._prompts[0][1].name, 0, "missing or of another size in our model"
                    )
                )
            else:
                found.append(self._judged(name, isolated[name], pairs, self._threshold))
        departing = next((number for number, operation in enumerate(found) if operation.departs), 0)
        for number in range(departing):
            earlier = self._judged(names[number], isolated[names[number]], pairs, self._threshold / _EARLIER)
            if earlier.departs:
                found[number] = earlier
                break
        return self._error(index + 1, f"layers.{index}", drift, tuple(found), routing)

    def _judged(
        self, name: str, errors: list[Floats], pairs: Sequence[Mapping[str, tuple[Array, Array]]], threshold: float
    ) -> OperationError:
        worst = max(range(len(errors)), key=lambda number: errors[number].max())
        theirs, ours = pairs[worst][name]
        others = {other: values[0] for other, values in pairs[worst].items() if other != name}
        how = describe_departure(theirs, ours, errors[worst], threshold, others=others)
        return self._operation(name, errors, how)

    def _operation(self, name: str, errors: list[Floats], how: str) -> OperationError:
        worst = max(range(len(errors)), key=lambda number: errors[number].max())
        return OperationError(
            name,
            float(errors[worst].max()),
            float(np.concatenate(errors).mean()),
            self._prompts[worst][1].name,
            int(errors[worst].argmax()),
            how,
        )

    def _error(
        self,
        layer: int,
        name: str,
        drift: list[Floats],
        found: tuple[OperationError, ...],
        routing: RoutingCheck | None = None,
    ) -> LayerError:
        worst = self._operation("", drift, "")
        return LayerError(layer, name, worst.largest, worst.mean, worst.prompt, worst.position, found, routing)


def first_departure(layers: Sequence[LayerError], thresholds: Sequence[float]) -> int | None:
    """The index of the first station with an operation that departs; else of the first one whose drift exceeds its
    threshold; else None.

    `thresholds` are those of the stations, the embedding first; the last one is used for all later stations.
    """
    departing = next((error.layer for error in layers if error.first_operation), None)
    if departing is not None:
        return departing
    bounds = [thresholds[min(error.layer, len(thresholds) - 1)] for error in layers]
    return next((e.layer for e, bound in zip(layers, bounds, strict=True) if not e.largest <= bound), None)


def stands_out(layers: Sequence[LayerError], station: LayerError) -> tuple[OperationError, float] | None:
    """The first operation of `station` whose error is several times that in any other layer, and the factor.

    This finds a fault that is too small to make an isolated operation depart.
    """
    for operation in station.operations:
        same = [o.largest for e in layers if e is not station for o in e.operations if o.name == operation.name]
        usual = max(same, default=np.inf)
        if operation.largest > _STANDS_OUT * usual > 0.0:
            return operation, operation.largest / usual
    return None


def _operation_error(name: str, reference: Array, ours: Array, explained: Array) -> Floats:
    """The error per token; 0 if a near tie of two experts explains it."""
    if name == CHOSEN:
        same = np.sort(reference, axis=-1) == np.sort(ours, axis=-1)
        error = np.where(same.all(axis=-1), 0.0, 1.0)
    else:
        error = relative_l2(reference, ours)
    follows = OPERATIONS.index(name) >= OPERATIONS.index(CHOSEN) and name in operations.MLP_HALF
    return np.where(explained, 0.0, error) if follows else error
