"""The first layer whose residual stream departs is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from msport.architectures import load_config
from msport.validate.layers import LayerError, compare_layers, first_departure
from msport.validate.prompts import Prompt
from msport.validate.recording import Chunk, Recording, RecordingWriter

PROMPTS = (Prompt("one", tuple(range(6))), Prompt("two", tuple(range(4))))
LAYERS, HIDDEN, VOCAB = 2, 128, 1024


def _states(length: int) -> np.ndarray:
    return np.random.default_rng(length).standard_normal((LAYERS + 1, length, HIDDEN)).astype(np.float32)


class Model:
    """Computes the recorded states, with `fault` applied to those of prompts of six tokens."""

    def __init__(self, layer: int = 0, position: int = 0, factor: float = 1.0) -> None:
        self._fault = (layer, position, factor)

    def hidden_states(self, ids: list[list[int]]) -> np.ndarray:
        states = _states(len(ids[0]))
        layer, position, factor = self._fault
        if len(ids[0]) == 6:
            states[layer:, position] *= np.float32(factor)
        return states[:, None]


@pytest.fixture
def recording(sample: Path, tmp_path: Path) -> Iterator[Recording]:
    with RecordingWriter(tmp_path / "recording.safetensors", PROMPTS, load_config(sample)) as writer:
        for number, prompt in enumerate(PROMPTS):
            writer.add(number, Chunk(0, np.zeros((len(prompt.ids), VOCAB), np.float32), _states(len(prompt.ids))))
    with Recording(tmp_path / "recording.safetensors") as opened:
        yield opened


def test_equal_trajectories_have_no_error(recording: Recording) -> None:
    layers = compare_layers(Model(), recording, list(enumerate(PROMPTS)))
    assert [error.layer for error in layers] == [0, 1, 2]
    assert max(error.largest for error in layers) == 0.0
    assert first_departure(layers, "float32", 1e-2) is None


def test_a_fault_is_located_by_layer_prompt_and_position(recording: Recording) -> None:
    layers = compare_layers(Model(layer=1, position=4, factor=1.1), recording, list(enumerate(PROMPTS)))
    assert first_departure(layers, "float32", 1e-2) == 1
    worst = layers[1]
    assert (worst.prompt, worst.position) == ("one", 4)
    assert worst.largest == pytest.approx(0.1, rel=1e-4)
    assert worst.mean == pytest.approx(0.1 / 10, rel=1e-4)


def test_states_that_are_not_finite_depart(recording: Recording) -> None:
    layers = compare_layers(Model(layer=2, factor=float("nan")), recording, list(enumerate(PROMPTS)))
    assert first_departure(layers, "float32", 1e-2) == 2


@pytest.mark.parametrize(
    ("dtype", "tolerance", "layer"),
    [("float32", 1e-2, 1), ("bfloat16", 1e-1, None), ("bfloat16", 1e-2, 2), ("float32", 1e-5, 0)],
)
def test_what_counts_as_departing_follows_the_dtype_and_the_tolerance(
    dtype: str, tolerance: float, layer: int | None
) -> None:
    errors = [LayerError(number, size, size, "one", 0) for number, size in enumerate((5e-5, 5e-3, 5e-2))]
    assert first_departure(errors, dtype, tolerance) == layer
