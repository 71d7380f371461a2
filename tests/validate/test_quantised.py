"""A quantised folder is judged by the reference on its own weights; beside its original, the cost is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from community import Recipe, write_community

from msport.convert import convert_checkpoint
from msport.errors import UsageError
from msport.sample import write_sample
from msport.validate import Report, runner, validate_model
from msport.validate.quantisation import encodings_of
from validate.tampering import change_tensor

pytestmark = pytest.mark.reference

PROMPTS = [list(range(3, 63)), list(range(50, 60))]
CODES = "model.layers.1.self_attn.v_proj.weight_codes"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("llama", tmp_path_factory.mktemp("hub") / "tiny", overrides={"num_hidden_layers": 2})


@pytest.fixture(scope="module")
def int4(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "tiny-int4"
    convert_checkpoint(hub, folder, dtype="int4", zero_points=True)
    return folder


@pytest.fixture(scope="module")
def report(int4: Path) -> Report:
    pytest.importorskip("transformers")
    return validate_model(int4, tol=1e-4, prompts=PROMPTS, max_kl=1.0)


def test_a_quantised_folder_is_exact_to_the_noise_of_float32_on_its_own_weights(report: Report, hub: Path) -> None:
    print(report)
    assert report.passed
    assert report.worst is not None
    assert report.worst.largest < 1e-5
    assert report.judgement is not None
    assert report.judgement.within_rounding
    assert all(check.passed for check in report.weights)
    assert "against the same quantised weights in float32" in str(report)
    assert f"14 weights in int4 in groups of 32, with zero points; made from {hub}" in str(report)


def test_its_cost_is_measured_beside_its_source(report: Report, hub: Path) -> None:
    cost = report.cost
    assert cost is not None
    assert cost.original == str(hub)
    assert [(text.name, text.tokens) for text in cost.texts] == [("prompt 1", 60), ("prompt 2", 10)]
    assert 1e-3 < cost.total.kl_mean < cost.total.kl_max < 1.0
    assert 0.3 < cost.total.top1 < 1.0
    assert cost.total.predicted == 68
    assert cost.total.perplexity is not None
    assert cost.total.perplexity != cost.total.perplexity_original
    assert f"beside the reference on {hub}" in str(report)


def test_the_cost_is_judged_only_by_a_bound(report: Report) -> None:
    cost = report.cost
    assert cost is not None
    mean = cost.total.kl_mean
    within, beyond, free = (
        replace(report, cost=replace(cost, max_kl=bound)) for bound in (1.01 * mean, 0.99 * mean, None)
    )
    assert (within.passed, beyond.passed, free.passed) == (True, False, True)
    assert "FAILED: quantisation costs a mean KL of" in str(beyond)
    assert f"more than --max-kl {0.99 * mean:g}" in str(beyond)
    assert "(not judged)" in str(free)
    document = json.loads(beyond.to_json())
    assert (document["passed"], document["cost"]["passed"]) == (False, False)


def _in_the_port(
    monkeypatch: pytest.MonkeyPatch, converted: Path, folder: Path, name: str, change: Callable[[Any], Any]
) -> None:
    """Our side reads `converted` with one tensor changed; the reference and the check of weights do not."""
    changed, choose = change_tensor(converted, folder, name, change), runner.choose_port
    monkeypatch.setattr(
        runner, "choose_port", lambda *given, **options: replace(choose(*given, **options), folder=changed)
    )


FAULTS = {
    "nibbles swapped": (CODES, lambda codes: codes << 4 | codes >> 4),
    "offsets dropped": (CODES.replace("codes", "offsets"), np.zeros_like),
}


@pytest.mark.parametrize("fault", ["nibbles swapped", pytest.param("offsets dropped", marks=pytest.mark.slow)])
def test_a_fault_in_how_our_side_decodes_one_weight_fails_and_is_located(
    fault: str, int4: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    _in_the_port(monkeypatch, int4, tmp_path / "changed", *FAULTS[fault])
    report = validate_model(int4, level="layers", prompts=PROMPTS)
    print(report)
    assert report.judgement is not None
    assert not report.judgement.passed
    assert all(check.passed for check in report.weights)
    assert report.departure is not None
    assert report.departure.first_operation is not None
    assert (report.departure.name, report.departure.first_operation.name) == ("layers.1", "v_proj")


@pytest.mark.slow  # the tests above judge a dense model in int4
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("family", "dtype"), [("llama", "int8"), ("mixtral", "int4"), ("mixtral", "int8")])
def test_every_encoding_passes_whole_and_streamed(family: str, dtype: str, stream: bool, tmp_path: Path) -> None:
    if not pytest.importorskip("transformers").__version__.startswith("4."):
        pytest.skip("Transformers 5 fuses the experts")
    hub = write_sample(family, tmp_path / "hub", overrides={"num_hidden_layers": 2})
    convert_checkpoint(hub, tmp_path / "ms", dtype=dtype)
    report = validate_model(tmp_path / "ms", tol=1e-4, level="layers", prompts=PROMPTS, stream=stream)
    print(report)
    assert report.passed
    assert report.setup.streamed == stream
    assert report.worst is not None
    assert report.worst.largest < 1e-5
    assert report.cost is not None
    # In a mixture, quantisation sends one token of seventy to another expert.
    assert 0 < report.cost.total.kl_mean < (1e-2 if dtype == "int8" else 1.0)


@pytest.mark.slow
def test_a_streamed_cost_is_that_of_whole_models(report: Report, int4: Path) -> None:
    streamed = validate_model(int4, prompts=PROMPTS, stream=True).cost
    assert streamed is not None
    assert report.cost is not None
    assert streamed.total == report.cost.total


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_a_community_checkpoint_passes_and_its_original_must_be_named(method: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    write_community(tmp_path / "hub", Recipe(method, symmetric=False, act_order=method == "gptq"))
    convert_checkpoint(tmp_path / "hub", tmp_path / "ms", dtype="int4")
    report = validate_model(tmp_path / "ms", tol=1e-4, prompts=PROMPTS)
    print(report)
    assert report.passed
    assert report.cost is None
    assert f"the cost of quantisation was not measured: {tmp_path / 'hub'} is quantised itself" in str(report)
    original = write_sample("llama", tmp_path / "original", dtype="float16", overrides={"num_hidden_layers": 2})
    costed = validate_model(tmp_path / "ms", tol=1e-4, prompts=PROMPTS, original=original)
    assert costed.cost is not None
    assert 1e-3 < costed.cost.total.kl_mean < 1.0


def test_encodings_are_counted(int4: Path, hub: Path) -> None:
    assert encodings_of(int4) == {"int4 in groups of 32, with zero points": 14}
    assert encodings_of(hub) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_kl": -1.0}, r"--max-kl\) is -1.0; give a number of nats from 0 up"),
        ({"max_kl": float("nan")}, r"--max-kl\) is nan"),
        ({"level": "weights", "max_kl": 0.1}, r"--level\) weights does not run the model, so .*--max-kl"),
        ({"original": "{int4}"}, r"tiny-int4: is quantised itself; name the unquantised model by .*--original"),
        ({"text": "{none}"}, r"none.txt: cannot be read \(No such file or directory\); give a text file"),
        ({"text": "{latin}"}, r"latin.txt: not a text in UTF-8 \(.* at byte 3\); convert it"),
        ({"text": "{empty}"}, r"empty.txt: has [01] tokens; give a text of at least two"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    options: dict[str, Any], message: str, int4: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "latin.txt").write_bytes(b"one\xff")
    (tmp_path / "empty.txt").touch()
    places = {name: str(tmp_path / f"{name}.txt") for name in ("none", "latin", "empty")} | {"int4": str(int4)}
    filled = {
        name: value.format(**places) if name in ("original", "text") else value for name, value in options.items()
    }
    with pytest.raises(UsageError, match=message):
        validate_model(int4, **filled)


def test_options_of_the_cost_are_refused_for_a_folder_that_is_not_quantised(converted: Path) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(UsageError, match=r"holds no int4 or int8 weights, so .*--max-kl.* would have no effect"):
        validate_model(converted, max_kl=0.1)


def test_a_bound_without_an_original_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    hub = write_sample("llama", tmp_path / "hub", overrides={"num_hidden_layers": 1})
    convert_checkpoint(hub, tmp_path / "ms", dtype="int4")
    hub.rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"--max-kl\) has nothing to measure: .* is no folder here; name the"):
        validate_model(tmp_path / "ms", max_kl=0.1, prompts=PROMPTS)
