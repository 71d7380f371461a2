"""What a loaded model computes with; what cannot be loaded is refused in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from msport.convert import convert_checkpoint
from msport.errors import CheckpointError, ConfigError, UsageError
from msport.msmodels import LanguageModel, load_model
from msport.msmodels.ops import portable

PROMPT = np.random.default_rng(1).integers(0, 1000, (1, 20))


def test_float16_runs_on_cpu(folder: Path, model: LanguageModel) -> None:
    half = load_model(folder, dtype="float16", max_length=60, prefill_chunk=16).logits(PROMPT)
    full = model.logits(PROMPT)
    error = np.linalg.norm(half - full) / np.linalg.norm(full)
    print(f"relative L2 error {error:.2e}")
    assert error <= 4e-3  # twice the measured 1.8e-3; float16 has 11 bits


def test_the_portable_operators_give_the_same_logits(
    folder: Path, model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused = model.logits(PROMPT)  # compiled before the names are bound anew
    monkeypatch.setenv("MSPORT_OPS", "portable")
    portable = load_model(folder, max_length=60, prefill_chunk=16)
    assert portable.operators == "portable"
    error = np.linalg.norm(portable.logits(PROMPT) - fused) / np.linalg.norm(fused)
    print(f"relative L2 error {error:.2e}")
    assert error <= 2.5e-6  # twice the measured 1.2e-6


def test_models_with_other_operators_live_side_by_side(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each compiles its graphs from its own, in whatever order they are first needed."""
    first = load_model(folder, max_length=32, prefill_chunk=16)
    monkeypatch.setenv("MSPORT_OPS", "portable")
    second = load_model(folder, max_length=32, prefill_chunk=16)
    monkeypatch.setattr(portable, "attention", _refuse)  # what the first one must not be built from
    first.prefill(PROMPT)
    with pytest.raises(RuntimeError, match="portable operators"):
        second.prefill(PROMPT)
    assert (first.operators, second.operators) == ("cpu", "portable")


def _refuse(*_: object) -> None:
    raise RuntimeError("built from portable operators")


def test_max_length_is_bounded_by_the_models_own(hub_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "hub"
    shutil.copytree(hub_folder, source)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = 64
    (source / "config.json").write_text(json.dumps(config))
    convert_checkpoint(source, tmp_path / "ms")
    assert load_model(tmp_path / "ms", max_length=4096).max_length == 64


@pytest.mark.parametrize("name", ["max_length", "batch_size", "prefill_chunk"])
def test_sizes_must_be_positive(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} must be at least 1"):
        load_model(folder, **{name: 0})


def test_a_folder_that_is_not_a_finished_conversion_is_refused(hub_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"msport\.json"):
        load_model(hub_folder)


def test_what_is_wrong_with_the_tokenizer_is_said_when_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "tokenizer.json").write_text("{}")
    model = load_model(copy)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        _ = model.tokenizer
    (copy / "tokenizer.json").unlink()
    assert model.tokenizer is None


def test_stop_ids_that_are_none_are_refused_before_a_weight_is_read(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "msport.json"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "end"}')
    with pytest.raises(ConfigError, match=r"generation_config\.json: eos_token_id is 'end'"):
        load_model(tmp_path)
