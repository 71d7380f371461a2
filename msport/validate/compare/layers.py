"""Compares layers: every block isolated, with the reference's input, and along our own trajectory.

In an isolated block no earlier error carries over: attention gets the reference's residual stream, and the feed-forward
gets the reference's stream after attention. The fault is in the first operation that departs. Along our own trajectory
errors carry over, as in the model that a user runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msport.checkpoint.dtypes import Array
from msport.validate import operations
from msport.validate.compare.departure import describe_departure
from msport.validate.compare.metrics import Floats, relative_l2
from msport.validate.compare.routing import RoutingCheck, add_routing, check_routing
from msport.validate.operations import (
    ATTENDED,
    CHOSEN,
    DOWN_PROJ,
    EMBEDDING,
    EXPERTS,
    FINAL_NORM,
    HEAD,
    MLP_NORM,
    O_PROJ,
    OPERATIONS,
    OUTPUT,
    ROUTER,
)
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording

_STANDS_OUT = 5.0
# If an operation departs, the fault is in the first operation before it with an error above this fraction of the
# threshold: a small error of a norm grows in attention.
_EARLIER = 5.0


@dataclass(frozen=True, slots=True)
class OperationError:
    """Relative L2 error of one operation of an isolated block, over all tokens; the largest is at `prompt`, `position`.

    It `departs` if the largest error exceeds the threshold of operations; `how` then describes the departure in words.
    """

    name: str
    largest: float
    mean: float
    prompt: str
    position: int
    departs: bool = False
    how: str = ""


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


@dataclass(frozen=True, slots=True)
class LayerValues:
    """The results of one layer for `prompt` on both sides, ``[tokens, features]`` by operation.

    `reference` was recorded. `own` holds the output and the routing along our own trajectory, `alone` all operations of
    our isolated block.
    """

    prompt: Prompt
    reference: Mapping[str, Array]
    own: Mapping[str, Array]
    alone: Mapping[str, Array]

    @property
    def routed(self) -> bool:
        """Whether both sides have a router, with as many experts per token."""
        return {ROUTER, CHOSEN} <= self.own.keys() & self.reference.keys()


# First row, normed states ``[n, hidden]`` and logits ``[n, vocab]`` of consecutive chunks of a prompt.
HeadChunks = Iterable[tuple[int, Array, Array]]


def compare_embedding(values: Sequence[tuple[Prompt, Array, Array]], threshold: float) -> LayerError:
    """The error of the embedding, given each prompt with the states of the reference and of the port.

    An operation departs if its relative L2 error exceeds `threshold`.
    """
    errors = [relative_l2(reference, ours) for _, reference, ours in values]
    described = (
        describe_departure(reference, ours, error, threshold)
        for (_, reference, ours), error in zip(values, errors, strict=True)
    )
    prompts = [prompt for prompt, _, _ in values]
    found = _operation(EMBEDDING, errors, prompts, threshold, next(filter(None, described), ""))
    return _station(0, EMBEDDING, errors, prompts, (found,))


def compare_layer(index: int, values: Sequence[LayerValues], threshold: float) -> LayerError:
    """The error of layer `index` over all prompts; `threshold` as in `compare_embedding`."""
    checks = [_routing(each) for each in values]
    routing: RoutingCheck | None = None
    for check in checks:
        routing = routing if check is None else add_routing(routing, check[0])
    errors = {
        name: [_operation_errors(name, each, check) for each, check in zip(values, checks, strict=True)]
        for name in OPERATIONS
        if name in values[0].reference and name in values[0].alone
    }
    drift = [relative_l2(each.reference[OUTPUT], each.own[OUTPUT]) for each in values]
    prompts = [each.prompt for each in values]
    return _station(index + 1, f"layers.{index}", drift, prompts, _isolated(values, errors, threshold), routing)


def compare_head(
    station: int,
    prompts: Sequence[tuple[Prompt, HeadChunks]],
    recording: Recording,
    drift: Sequence[Floats],
    threshold: float,
) -> LayerError:
    """The error of the final norm and the head, fed with the reference's residual stream.

    `prompts` come with their results. `drift` holds the relative L2 errors of our
    own logits of each prompt; `threshold` as in `compare_embedding`.
    """
    names = FINAL_NORM, HEAD
    errors: dict[str, list[Floats]] = {name: [] for name in names}
    how = dict.fromkeys(names, "")
    for prompt, chunks in prompts:
        pieces: dict[str, list[Floats]] = {name: [] for name in names}
        for start, normed, logits in chunks:
            end = start + len(logits)
            pairs = {
                FINAL_NORM: (recording.read(f"{FINAL_NORM}.{prompt.number}", start, end), normed),
                HEAD: (recording.logits(prompt.number, start, end), logits),
            }
            for name, (reference, ours) in pairs.items():
                error = relative_l2(reference, ours)
                pieces[name].append(error)
                how[name] = how[name] or describe_departure(reference, ours, error, threshold, start)
        for name in names:
            errors[name].append(np.concatenate(pieces[name]))
    of = [prompt for prompt, _ in prompts]
    found = tuple(_operation(name, errors[name], of, threshold, how[name]) for name in names)
    return _station(station, HEAD, drift, of, found)


def _isolated(
    values: Sequence[LayerValues], errors: Mapping[str, Sequence[Floats]], threshold: float
) -> tuple[OperationError, ...]:
    """The recorded operations in their order; `errors` holds those that our side also has."""
    names = [name for name in OPERATIONS if name in values[0].reference]
    found = [
        _judged(name, values, errors[name], threshold) if name in errors else _missing(name, values[0].prompt)
        for name in names
    ]
    departing = next((number for number, operation in enumerate(found) if operation.departs), 0)
    for number, name in enumerate(names[:departing]):
        earlier = _judged(name, values, errors[name], threshold / _EARLIER)
        if earlier.departs:
            found[number] = earlier
            break
    return tuple(found)


def _routing(values: LayerValues) -> tuple[RoutingCheck, Array] | None:
    """The router's decisions and bool ``[tokens]``, the tokens that a near tie explains; None without a router."""
    return check_routing(values.reference, values.own, values.alone) if values.routed else None


def _operation_errors(name: str, values: LayerValues, routing: tuple[RoutingCheck, Array] | None) -> Floats:
    """The error of an isolated operation per token; 0 if a near tie of two experts explains it."""
    reference, ours = values.reference[name], values.alone[name]
    if name == CHOSEN:
        same = np.sort(reference, axis=-1) == np.sort(ours, axis=-1)
        error = np.where(same.all(axis=-1), 0.0, 1.0)
    else:
        error = relative_l2(reference, ours)
    follows = OPERATIONS.index(name) >= OPERATIONS.index(CHOSEN) and name in operations.MLP_HALF
    return np.where(routing[1], 0.0, error) if follows and routing is not None else error


def _judged(name: str, values: Sequence[LayerValues], errors: Sequence[Floats], threshold: float) -> OperationError:
    worst = values[_worst(errors)]
    others = {other: array for other, array in worst.reference.items() if other != name and other in worst.alone}
    how = describe_departure(worst.reference[name], worst.alone[name], errors[_worst(errors)], threshold, others=others)
    return _operation(name, errors, [each.prompt for each in values], threshold, how)


def _missing(name: str, prompt: Prompt) -> OperationError:
    return OperationError(name, np.inf, np.inf, prompt.name, 0, True, "missing or of another size in our model")


def _operation(
    name: str, errors: Sequence[Floats], prompts: Sequence[Prompt], threshold: float, how: str
) -> OperationError:
    largest, mean, prompt, position = _extent(errors, prompts)
    return OperationError(name, largest, mean, prompt, position, not largest <= threshold, how)


def _station(
    layer: int,
    name: str,
    drift: Sequence[Floats],
    prompts: Sequence[Prompt],
    found: tuple[OperationError, ...],
    routing: RoutingCheck | None = None,
) -> LayerError:
    return LayerError(layer, name, *_extent(drift, prompts), found, routing)


def _extent(errors: Sequence[Floats], prompts: Sequence[Prompt]) -> tuple[float, float, str, int]:
    """The largest and the mean error, and the prompt and the position of the largest."""
    worst = _worst(errors)
    largest, mean = float(errors[worst].max()), float(np.concatenate(errors).mean())
    return largest, mean, prompts[worst].name, int(errors[worst].argmax())


def _worst(errors: Sequence[Floats]) -> int:
    """The number of the prompt with the largest error."""
    return max(range(len(errors)), key=lambda number: errors[number].max())


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


def first_outlier(layers: Sequence[LayerError], threshold: float) -> int | None:
    """The index of the first station with an operation that stands out from the other layers, and whose error comes
    near the `threshold` of operations; else None.
    """
    least = threshold / _EARLIER
    outliers = ((error.layer, stands_out(layers, error)) for error in layers)
    return next((layer for layer, found in outliers if found is not None and found[0].largest > least), None)


def stands_out(layers: Sequence[LayerError], station: LayerError) -> tuple[OperationError, float] | None:
    """The first operation of `station` whose error is several times that in any other layer, and the factor.

    This finds a fault that is too small to make an isolated operation depart. The final norm is compared with the norms
    of the layers.
    """
    for operation in station.operations:
        alike = {operation.name, MLP_NORM} if operation.name == FINAL_NORM else {operation.name}
        same = [o.largest for e in layers if e is not station for o in e.operations if o.name in alike]
        usual = max(same, default=np.inf)
        if operation.largest > _STANDS_OUT * usual > 0.0:
            return operation, operation.largest / usual
    return None
