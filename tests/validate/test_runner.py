"""A converted checkpoint is judged end to end, and what cannot be judged is refused before anything runs."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.architectures import load_config
from msport.checkpoint import read_manifest, write_manifest
from msport.checkpoint.manifest import checkpoint_hash
from msport.errors import CheckpointError, ConfigError, MissingDependencyError, UsageError
from msport.sample import write_sample
from msport.validate import request, runner, validate_model
from msport.validate.reference import loading
from msport.validate.views.notes import notes_on
from validate.tampering import change_config, change_tensor


@pytest.mark.reference
def test_a_faithful_conversion_passes_at_every_layer_far_below_the_tolerance(sample: Path, converted: Path) -> None:
    pytest.importorskip("transformers")
    phases: dict[str, tuple[int, int]] = {}
    report = validate_model(
        converted,
        tol=1e-4,
        level="layers",
        max_length=200,
        progress=lambda step: phases.update({step.phase: (step.done, step.total)}),
    )
    print(report)
    assert report.passed
    assert report.setup.reference == str(sample.resolve())
    assert {result.title for result in report.results} > {"random", "random, decode", "repeated", "special", "chinese"}
    assert len(report.layers) == 4
    assert all(error.routing and error.routing.agreement == 1.0 for error in report.layers[1:3])
    assert report.first_departure is None
    assert list(phases) == [
        "load reference",
        "run reference",
        "load model",
        "run model",
        "compare layers",
        "compare weights",
    ]
    assert all(done == total for done, total in phases.values())
    assert report.seconds is not None
    assert report.seconds.keys() == phases.keys()
    assert report.judgement is not None
    assert report.judgement.within_rounding
    assert len(report.weights) == len(read_manifest(converted).tensors)
    document = json.loads(report.to_json())
    assert {"msport", "mindspore", "torch", "transformers", "numpy", "python"} <= document["versions"].keys()
    assert (document["device"], document["dtype"], document["seed"]) == ("CPU", "float32", 0)
    assert document["checkpoint"] == checkpoint_hash(read_manifest(converted))


@pytest.mark.reference
def test_a_fault_is_caught_and_located_without_being_asked_for(converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    name = "model.layers.1.self_attn.o_proj.weight"
    folder = change_tensor(converted, tmp_path / "ms", name, lambda values: values * 1.2)
    report = validate_model(folder, prompts=[list(range(40)), list(range(50, 60))])
    print(report)
    assert not report.passed
    assert report.first_departure == 2
    assert report.departure is not None
    assert report.departure.name == "layers.1"
    assert "layers.1" in str(report)


@pytest.mark.reference
def test_a_row_of_the_embedding_that_no_prompt_has_fails_by_the_weights(converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")

    def forget(values: np.ndarray) -> np.ndarray:
        values[777] = 0.0
        return values

    folder = change_tensor(converted, tmp_path / "ms", "model.embed_tokens.weight", forget)
    report = validate_model(folder, prompts=[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    assert report.judgement is not None
    assert report.judgement.passed
    assert not report.passed
    assert "agree to" in str(report)
    assert "model.embed_tokens.weight differs in 128 of 131,072 elements" in str(report)
    assert validate_model(folder, prompts=[[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]], rule="tolerance").passed


@pytest.mark.slow  # tests/validate/verdict/test_rules.py has the rule, the test above the way to it
@pytest.mark.reference
def test_an_epsilon_that_is_ten_times_as_large_is_within_the_tolerance_and_fails(
    converted: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    folder = change_config(converted, tmp_path / "ms", lambda config: config.update(rms_norm_eps=1e-4))
    report = validate_model(folder, tol=1e-1, prompts=[list(range(40)), list(range(50, 60))])
    assert not report.passed
    assert "FAILED: within 0.1, but" in str(report)
    assert report.departure is not None
    assert report.departure.name == "layers.0"
    assert all(check.passed for check in report.weights)


def test_a_tolerance_below_one_rounding_is_refused_before_anything_runs(converted: Path) -> None:
    with pytest.raises(UsageError, match="below one rounding to float32"):
        validate_model(converted, tol=1e-8)
    with pytest.raises(UsageError, match="below one rounding to bfloat16"):
        validate_model(converted, tol=1e-3, reference_dtype="bfloat16")


@pytest.mark.slow
@pytest.mark.reference
def test_a_verdict_is_valid_even_if_the_weights_cannot_be_compared(
    converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise CheckpointError("two tensors of one name")

    pytest.importorskip("transformers")
    monkeypatch.setattr(runner, "compare_weights", refuse)
    folder = change_tensor(converted, tmp_path / "ms", "model.norm.weight", lambda values: values + 1)
    report = validate_model(folder, prompts=[[1, 2, 3]], stream=True)
    assert "first to depart: lm_head, norm" in str(report)
    assert "the weights were not compared: two tensors of one name" in report.notes


def test_weights_are_judged_without_torch(
    sample: Path, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    assert validate_model(converted, level="weights").passed
    folder = change_tensor(converted, tmp_path / "ms", "model.norm.weight", lambda values: values + 1)
    assert not validate_model(folder, sample, level="weights").passed
    with pytest.raises(MissingDependencyError, match="reference"):
        validate_model(converted)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"tol": -1.0}, "tolerance"),
        ({"tol": float("nan")}, "tolerance"),
        ({"level": "everything"}, "is not one of logits"),
        ({"reference_dtype": "float8"}, "is not one of float32"),
        ({"rule": "guess"}, "is not one of rounding, tolerance"),
        ({"max_length": 0}, "max_length"),
        ({"seed": -1}, "seed"),
        ({"prompts": []}, "list of prompts is empty"),
        ({"prompts": [[99999]]}, "0 to 1023"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], reason: str, converted: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        validate_model(converted, **arguments)


def test_a_folder_that_is_not_a_conversion_is_refused(sample: Path) -> None:
    with pytest.raises(CheckpointError, match=r"msport\.json"):
        validate_model(sample)


def test_a_source_that_is_gone_is_named_with_the_remedy(converted: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(converted, tmp_path / "ms"))
    write_manifest(folder, dataclasses.replace(read_manifest(folder), source=str(tmp_path / "gone")))
    for level in request.LEVELS:
        with pytest.raises(CheckpointError, match=r"gone.*--reference"):
            validate_model(folder, level=level)  # type: ignore[arg-type]


def test_a_reference_of_other_sizes_is_refused_before_it_is_loaded(converted: Path, tmp_path: Path) -> None:
    other = write_sample("gpt-oss", tmp_path / "other", overrides={"num_hidden_layers": 4})
    for level in request.LEVELS:
        with pytest.raises(ConfigError, match="num_hidden_layers is 4, not 2"):
            validate_model(converted, other, level=level)  # type: ignore[arg-type]


def test_a_config_that_was_changed_is_noted(converted: Path, tmp_path: Path) -> None:
    folder = change_config(converted, tmp_path / "ms", lambda config: config.update(sliding_window=25))
    assert validate_model(folder, level="weights").notes == (
        "config.json differs from the reference's in sliding_window",
    )
    assert validate_model(converted, level="weights").notes == ()


def test_torch_and_mindspore_are_imported_only_when_something_runs() -> None:
    program = (
        "import sys, msport.validate.runner, msport.cli.validate; print({'torch', 'mindspore'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"


def test_what_a_run_cannot_have_shown_is_noted(converted: Path) -> None:
    config = load_config(converted)
    short = notes_on(config, 20, 128)
    assert len(short) == 3
    assert "window of 24" in short[0]
    assert "--max-length 4352" in short[2]
    assert "give a prompt of 4352 tokens" in notes_on(config, 20, 128, given=True)[2]
    assert notes_on(config, 5000, 128) == ()
