"""A validator that cannot fail is worthless: every fault put into our side is caught, at the length that it needs.

Each test states where the fault shows and where it hides: a window that is off by one needs a prompt longer than the
window, rounded YaRN bounds need distance, the rest shows at any length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from msport.architectures import load_config
from msport.validate.compare.logits import compare_logits
from msport.validate.compare.metrics import TokenErrors
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter
from validate.tampering import change_config, change_tensor

pytestmark = pytest.mark.reference

WINDOW = 24
_ids = [int(token) for token in np.random.default_rng(3).integers(0, 1000, 200)]
PROMPTS = (
    Prompt("short", tuple(_ids[:20])),
    Prompt("past the window", tuple(_ids[:40]), number=1),
    Prompt("long", tuple(_ids), number=2),
)

Failures = Callable[[Path, float], dict[str, int]]


def _record(sample: Path, folder: Path, prompts: Sequence[Prompt]) -> None:
    from msport.validate.reference.loading import load_reference
    from msport.validate.reference.run import record

    folder.mkdir()
    with RecordingWriter(folder, prompts, load_config(sample).vocab_size) as writer:
        record(load_reference(sample), prompts, writer)


def _errors(folder: Path, recording: Recording, prompts: Sequence[Prompt]) -> list[TokenErrors]:
    from msport.msmodels.loading import load_model

    longest = max(len(prompt.ids) for prompt in prompts)
    results = compare_logits(load_model(folder, max_length=longest), recording, prompts)
    for result in results:
        print(f"{result.title}: {result.errors.relative_l2.max():.1e} at {result.worst}")
    return [result.errors for result in results]


@pytest.fixture(scope="module")
def recorded(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("recorded") / "reference"
    _record(sample, path, PROMPTS)
    with Recording(path) as recording:
        yield recording


@pytest.fixture
def failures(recorded: Recording) -> Failures:
    """How many tokens of each prompt fail in the checkpoint of a folder, at a tolerance."""

    def count(folder: Path, tolerance: float) -> dict[str, int]:
        errors = _errors(folder, recorded, PROMPTS)
        return {p.name: int((~(e.relative_l2 <= tolerance)).sum()) for p, e in zip(PROMPTS, errors, strict=True)}

    return count


def test_without_a_fault_nothing_fails_at_a_hundredth_of_the_tightest_tolerance_used_here(
    failures: Failures, converted: Path
) -> None:
    assert failures(converted, 1e-5) == {"short": 0, "past the window": 0, "long": 0}


def test_one_perturbed_weight_of_sixteen_thousand_shows_at_1e_3_at_any_length(
    failures: Failures, converted: Path, tmp_path: Path
) -> None:
    def perturb(values: np.ndarray) -> np.ndarray:
        values[3, 5] += 4 * values.std()
        return values

    name = "model.layers.1.self_attn.o_proj.weight"
    failed = failures(change_tensor(converted, tmp_path / "ms", name, perturb), 1e-3)
    assert min(failed.values()) > 0


@pytest.mark.parametrize("window", [WINDOW - 1, WINDOW + 1])
def test_a_window_that_is_off_by_one_shows_only_past_the_window(
    window: int, failures: Failures, converted: Path, tmp_path: Path
) -> None:
    folder = change_config(converted, tmp_path / "ms", lambda config: config.update(sliding_window=window))
    failed = failures(folder, 1e-2)
    assert failed["short"] == 0, "20 tokens are within either window"
    assert failed["past the window"] > 0
    assert failed["long"] > 100


def test_dropped_sinks_show_from_the_first_tokens_on(failures: Failures, converted: Path, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.sinks"
    failed = failures(change_tensor(converted, tmp_path / "ms", name, lambda values: values * 0 - 1e4), 1e-2)
    assert failed["short"] > 15


def test_swapped_gate_and_up_show_at_every_token(failures: Failures, converted: Path, tmp_path: Path) -> None:
    def swap(values: np.ndarray) -> np.ndarray:
        return np.stack([values[..., 1::2], values[..., ::2]], axis=-1).reshape(values.shape)

    name = "model.layers.1.mlp.experts.gate_up_proj"
    failed = failures(change_tensor(converted, tmp_path / "ms", name, swap), 1e-2)
    assert failed == {prompt.name: len(prompt.ids) for prompt in PROMPTS}


def test_rounded_yarn_bounds_hide_in_short_prompts_and_grow_with_distance(
    sample: Path, converted: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    ids = np.random.default_rng(3).integers(0, 1000, 1200)
    prompt = Prompt("very long", tuple(int(token) for token in ids))
    _record(sample, tmp_path / "reference", [prompt])
    folder = change_config(converted, tmp_path / "ms", lambda config: config["rope_scaling"].update(truncate=True))
    with Recording(tmp_path / "reference") as recording:
        (errors,) = _errors(folder, recording, [prompt])
    near, far = np.median(errors.relative_l2[:200]), np.median(errors.relative_l2[-200:])
    print(f"median of the first 200 tokens {near:.1e}, of the last 200 {far:.1e}")
    assert (errors.relative_l2[:20] <= 1e-2).all(), "twenty tokens would not have shown it"
    assert errors.relative_l2.max() > 1e-2
    assert far > 3 * near
