"""The noise of the reference: a second run, rounded as our side is, that leaves the first as it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.architectures import load_config
from msport.sample import write_sample
from msport.validate.prompts import Prompt
from msport.validate.recording import Recording, RecordingWriter
from msport.validate.reference.noise import Noise, NoisePlan

pytestmark = pytest.mark.reference

PROMPTS = (Prompt("random", tuple(np.random.default_rng(0).integers(0, 1000, 60).tolist())), Prompt("short", (7,) * 9))
LENGTHS = (40, 9)


def _record(
    sample: Path,
    folder: Path,
    dtypes: Sequence[str],
    *,
    reference: str = "float32",
    stored: str | None = None,
    **how: Any,
) -> tuple[dict[str, Noise], np.ndarray]:
    """The noise by dtype, and the logits of the first run."""
    pytest.importorskip("transformers")
    from msport.validate.reference.loading import load_reference
    from msport.validate.reference.run import record
    from msport.validate.reference.streaming import stream_reference

    load = stream_reference if how.get("stream") else load_reference
    plan = NoisePlan(LENGTHS, tuple(dtypes), reference, stored, how.get("seed", 0)) if dtypes else None
    folder.mkdir()
    with RecordingWriter(folder, PROMPTS, load_config(sample).vocab_size) as writer:
        noise = record(load(sample, reference), PROMPTS, writer, noise=plan)
    with Recording(folder) as recording:
        return {each.dtype: each for each in noise}, recording.logits(0, 0, len(PROMPTS[0].ids))


def test_the_second_run_leaves_the_first_as_it_was(sample: Path, tmp_path: Path) -> None:
    _, alone = _record(sample, tmp_path / "alone", ())
    _, beside = _record(sample, tmp_path / "beside", ("bfloat16", "float32"))
    np.testing.assert_array_equal(alone, beside)


def test_the_shorter_the_mantissa_the_larger_the_noise(sample: Path, tmp_path: Path) -> None:
    noise, _ = _record(sample, tmp_path / "all", ("float32", "float16", "bfloat16"))
    medians = {dtype: float(np.median(each.of("relative_l2"))) for dtype, each in noise.items()}
    print(medians)
    assert [len(tokens) for tokens in noise["float32"].tokens] == list(LENGTHS)
    assert 1e-8 < medians["float32"] < 1e-5
    assert 5e-4 < medians["float16"] < 2e-2 < 10 * medians["bfloat16"] < 2
    for each in noise.values():
        assert len(each.drift) == 1 + len(each.router) == 1 + load_config(sample).num_hidden_layers
        assert all(error > 0 for error in each.router)
        assert each.of("size").min() > 0


@pytest.mark.slow
def test_streamed_and_whole_references_have_the_same_noise(sample: Path, tmp_path: Path) -> None:
    whole, _ = _record(sample, tmp_path / "whole", ("float32",))
    streamed, _ = _record(sample, tmp_path / "streamed", ("float32",), stream=True)
    ratio = np.median(streamed["float32"].of("relative_l2")) / np.median(whole["float32"].of("relative_l2"))
    assert 0.5 < ratio < 2


@pytest.mark.slow
def test_another_seed_moves_other_weights(sample: Path, tmp_path: Path) -> None:
    first, again, other = (
        _record(sample, tmp_path / name, ("float32",), seed=seed)[0]["float32"].tokens[0]
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_weights_that_a_conversion_rounded_are_rounded_in_the_second_run(tmp_path: Path) -> None:
    sample = write_sample("llama", tmp_path / "hub", dtype="float32", overrides={"num_hidden_layers": 1})
    exact, _ = _record(sample, tmp_path / "exact", ("float32",))
    rounded, _ = _record(sample, tmp_path / "rounded", ("float32",), stored="bfloat16")
    assert np.median(rounded["float32"].of("max_abs")) > 1000 * np.median(exact["float32"].of("max_abs"))
