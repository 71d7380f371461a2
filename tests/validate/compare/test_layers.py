"""The first station that departs is named, with the operation: isolated blocks tell a fault from what it causes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.validate.compare.layers import (
    LayerError,
    OperationError,
    compare_head,
    first_departure,
    first_outlier,
    stands_out,
)
from msport.validate.compare.routing import check_routing, near_ties
from msport.validate.measurement import Comparison, walk_layers
from msport.validate.operations import ATTENDED, CHOSEN, FINAL_NORM, HEAD, MLP_NORM, OUTPUT, ROUTER
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter, layer_name

PROMPTS = (Prompt("one", tuple(range(6))), Prompt("two", tuple(range(4)), number=1))
LAYERS, HIDDEN, VOCAB = 3, 16, 40
_WEIGHTS = np.random.default_rng(0).standard_normal((LAYERS, 2, HIDDEN, HIDDEN)).astype(np.float32) / 4
_HEAD = np.random.default_rng(1).standard_normal((HIDDEN, VOCAB)).astype(np.float32)


def _embed(ids: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((100, HIDDEN)).astype(np.float32)[np.asarray(ids)]


def _halves(layer: int, states: np.ndarray, attended: np.ndarray | None, factor: float = 1.0) -> dict[str, np.ndarray]:
    own = states + np.tanh(states @ _WEIGHTS[layer, 0])
    given = own if attended is None else attended
    return {ATTENDED: own, OUTPUT: given + np.float32(factor) * np.tanh(given @ _WEIGHTS[layer, 1])}


class Runner:
    def __init__(self, layer: int, factor: float, missing: frozenset[str]) -> None:
        self._layer, self._factor, self._missing = layer, factor, missing

    def run(self, states: np.ndarray, attended: np.ndarray | None = None) -> dict[str, Any]:
        found = _halves(self._layer, states, attended, self._factor)
        return {name: values for name, values in found.items() if name not in self._missing}


class Blocks:
    """Computes what was recorded; in layer 1 the second half is multiplied by `factor`."""

    def __init__(self, factor: float = 1.0, missing: frozenset[str] = frozenset(), cap: float = 1.0) -> None:
        self._factor, self._missing, self._cap = factor, missing, cap

    @contextmanager
    def embedding(self) -> Iterator[Any]:
        yield _embed

    @contextmanager
    def layer(self, index: int, features: dict[str, int]) -> Iterator[Runner]:
        assert features == {ATTENDED: HIDDEN, OUTPUT: HIDDEN}
        yield Runner(index, self._factor if index == 1 else 1.0, self._missing)

    def head(self, states: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        yield 0, states, states @ _HEAD * np.float32(self._cap)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    with RecordingWriter(tmp_path, PROMPTS, VOCAB) as writer:
        states = [_embed(np.array(prompt.ids)) for prompt in PROMPTS]
        writer.add("embed_tokens", {f"embed_tokens.{n}": each for n, each in enumerate(states)})
        for layer in range(LAYERS):
            found = [_halves(layer, each, None) for each in states]
            named = {layer_name(layer, name, n): v for n, each in enumerate(found) for name, v in each.items()}
            writer.add(f"layers.{layer}", named)
            states = [each[OUTPUT] for each in found]
        writer.add("norm", {f"norm.{n}": each for n, each in enumerate(states)})
        for number, each in enumerate(states):
            writer.add_logits(number, 0, each @ _HEAD)
    with Recording(tmp_path) as opened:
        yield opened


def _compare(blocks: Blocks, recording: Recording) -> list[LayerError]:
    walk = walk_layers(blocks, Comparison(recording, PROMPTS, LAYERS, 1e-4))  # type: ignore[arg-type]
    assert [each.prompt for each in walk.trajectories] == list(PROMPTS)
    drift = [np.zeros(len(prompt.ids)) for prompt in PROMPTS]
    chunks = [(prompt, blocks.head(recording.hidden_states(prompt.number, LAYERS))) for prompt in PROMPTS]
    return [*walk.stations, compare_head(LAYERS + 1, chunks, recording, drift, 1e-4)]


def test_equal_sides_have_no_error_at_any_station(recording: Recording) -> None:
    errors = _compare(Blocks(), recording)
    assert [error.name for error in errors] == ["embed_tokens", "layers.0", "layers.1", "layers.2", HEAD]
    assert max(error.largest for error in errors) == 0.0
    assert first_departure(errors, [1e-4]) is None


def test_a_fault_is_isolated_while_the_layers_after_it_only_drift(recording: Recording) -> None:
    errors = _compare(Blocks(factor=1.5), recording)
    assert first_departure(errors, [1e-4]) == 2
    faulty, after = errors[2], errors[3]
    assert faulty.first_operation is not None
    assert faulty.first_operation.name == OUTPUT
    assert faulty.first_operation.how.startswith("every token")
    assert faulty.attention == 0.0
    assert after.largest > 1e-2, "the error carries on along our own trajectory"
    assert after.first_operation is None, "and yet the block itself is right"


def test_an_operation_that_our_model_lacks_departs(recording: Recording) -> None:
    (faulty, *_) = [
        error for error in _compare(Blocks(missing=frozenset({ATTENDED})), recording) if error.first_operation
    ]
    assert faulty.first_operation is not None
    assert (faulty.name, faulty.first_operation.name) == ("layers.0", ATTENDED)
    assert faulty.first_operation.how == "missing or of another size in our model"


def test_a_fault_of_the_head_is_put_there_and_described(recording: Recording) -> None:
    errors = _compare(Blocks(cap=0.5), recording)
    assert first_departure(errors, [1e-4]) == LAYERS + 1
    assert errors[-1].first_operation is not None
    assert errors[-1].first_operation.how == "every token, 0.5 times the reference"


def test_states_that_are_not_finite_depart(recording: Recording) -> None:
    errors = _compare(Blocks(factor=float("nan")), recording)
    assert first_departure(errors, [1e-4]) == 2
    assert errors[2].first_operation is not None
    assert "not finite at 6 of 6 tokens" in errors[2].first_operation.how


@pytest.mark.parametrize(
    ("thresholds", "station"), [([1e-4], 1), ([1e-1], None), ([1e-2], 2), ([1e-5, 1e-2, 1e-1], 0), ([1e-4, 1e-2], 2)]
)
def test_a_drift_departs_beyond_the_threshold_of_its_station(thresholds: list[float], station: int | None) -> None:
    errors = [LayerError(n, str(n), size, size, "one", 0) for n, size in enumerate((5e-5, 5e-3, 5e-2))]
    assert first_departure(errors, thresholds) == station


def test_an_operation_with_a_larger_error_than_in_other_layers_stands_out_without_departing() -> None:
    def layer(number: int, *sizes: float) -> LayerError:
        names = ("q_proj", "up_proj")
        operations = [OperationError(n, size, size, "one", 0) for n, size in zip(names, sizes, strict=True)]
        return LayerError(number, f"layers.{number}", 1e-6, 1e-6, "one", 0, tuple(operations))

    layers = [layer(0, 3e-7, 4e-7), layer(1, 4e-7, 4e-5), layer(2, 3e-7, 5e-7)]
    found = stands_out(layers, layers[1])
    assert found is not None
    assert (found[0].name, round(found[1])) == ("up_proj", 80)
    assert stands_out(layers, layers[0]) is None
    assert stands_out(layers[1:2], layers[1]) is None, "with nothing to compare it with"
    assert first_outlier(layers, 1e-4) == 1
    assert first_outlier(layers, 1e-2) is None, "far below the threshold of operations it is no sign"


def test_the_final_norm_stands_out_from_the_norms_of_the_layers() -> None:
    def station(number: int, name: str, size: float) -> LayerError:
        return LayerError(number, name, 1e-6, 1e-6, "one", 0, (OperationError(name, size, size, "one", 0),))

    layers = [station(0, MLP_NORM, 3e-7), station(1, MLP_NORM, 4e-7), station(2, FINAL_NORM, 4e-5)]
    assert first_outlier(layers, 1e-4) == 2


def test_experts_nearly_tie_within_the_error_of_the_router_s_logits_and_of_no_more_than_rounding_makes() -> None:
    logits = np.array([[4.0, 3.0, 2.99, 0.0], [4.0, 3.0, 1.0, 0.0]])
    reference, own = _routing(logits), _routing(logits + np.array([[0.0, 0.02, 0.0, 0.0]]))
    assert near_ties(reference, own).tolist() == [True, False]
    assert near_ties(reference, own, most=1e-3).tolist() == [False, False]
    assert near_ties(reference, reference).tolist() == [False, False]


def _routing(logits: np.ndarray) -> dict[str, np.ndarray]:
    return {ROUTER: logits, CHOSEN: np.argsort(-logits, axis=-1)[:, :2].astype(np.int32)}


def test_a_near_tie_explains_another_choice_and_a_clear_lead_does_not() -> None:
    reference = np.array([[3.0, 2.0, 1.0, 0.0], [3.0, 1.0 + 1e-6, 1.0, 0.0]], np.float32)
    ours = np.array([[3.0, 1.0, 2.0, 0.0], [3.0, 1.0, 1.0 + 1e-6, 0.0]], np.float32)
    swapped = _routing(ours)
    swapped[ROUTER] = reference + np.float32(1e-6)  # the logits agree, yet the first token takes another expert
    check, explained = check_routing(_routing(reference), _routing(reference), swapped)
    assert (check.tokens, check.agreeing, check.near_ties, check.wrong) == (2, 2, 1, 1)
    assert explained.tolist() == [False, True]


def test_the_margin_is_that_of_the_tokens_that_differ() -> None:
    reference = np.array([[3.0, 2.0, 1.0], [3.0, 1.25, 1.0]], np.float32)
    ours = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 1.25]], np.float32)
    check, _ = check_routing(_routing(reference), _routing(ours), _routing(reference))
    assert (check.agreement, check.margin) == (0.5, 0.25)
