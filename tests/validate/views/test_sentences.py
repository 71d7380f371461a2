"""A report passes only if everything that was judged does, and says of a failure what is known of the fault."""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from msport.validate.compare.layers import LayerError, OperationError
from msport.validate.compare.metrics import measure
from msport.validate.compare.results import PromptResult
from msport.validate.compare.routing import RoutingCheck
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.prompts import Prompt
from msport.validate.views.page import render_page
from validate.made_reports import LAYERS, make_noise, make_report, make_result


def test_a_report_passes_if_every_token_does() -> None:
    assert make_report(make_result(), make_result("other")).passed


def test_one_token_of_one_prompt_fails_it() -> None:
    report = make_report(make_result(), make_result("other", wrong={3: 1.5}))
    assert not report.passed
    assert report.worst is not None
    assert (report.worst.title, report.worst.worst) == ("other", 3)
    assert "1 of 10 tokens exceed the tolerance 0.01" in str(report)
    assert "'other' at position 3" in str(report)


def test_a_report_of_nothing_does_not_pass() -> None:
    assert not make_report().passed
    assert not make_report(
        PromptResult(Prompt("empty", ()), "prefill", 0, measure(np.ones((0, 3)), np.ones((0, 3))))
    ).passed
    assert "nothing was compared" in str(make_report())


def test_a_report_on_layers_fails_by_a_layer_too() -> None:
    assert make_report(make_result(), level="logits", layers=LAYERS).passed
    failed = make_report(make_result(), level="layers", layers=LAYERS, first_departure=2)
    assert not failed.passed
    assert "first to depart: layers.1, experts (not finite): every token, 2 times the reference" in str(failed)
    assert not make_report(make_result(), level="layers", layers=LAYERS, first_departure=2).passed
    nothing = make_report(make_result(), level="layers")
    assert not nothing.passed
    assert "FAILED: no layer was compared" in str(nothing)


def test_a_report_says_how_the_error_compares_with_rounding() -> None:
    report = make_report(make_result(), noise=make_noise())
    assert report.passed
    assert (
        "PASSED: within rounding: relative L2 error at most 1.00e-05 over 5 tokens (tolerance 0.01), 1.0 times"
        in str(report)
    )
    document = json.loads(report.to_json())
    assert document["noise"]["tokens"] == [5]
    assert all(check["passed"] for check in document["judgement"]["checks"])
    assert "times what rounding explains" in render_page(report)


def test_an_error_within_the_tolerance_that_rounding_does_not_explain_fails() -> None:
    report = make_report(make_result(wrong=dict.fromkeys(range(5), 1.003)), noise=make_noise())
    assert not report.passed
    assert "FAILED: within 0.01, but 590 times what rounding explains: " in str(report)
    assert "the reference's own noise 1.00e-05; the worst token has 3.01e-03, 'random' at position 0" in str(report)
    assert report.results[0].failed == 5
    assert make_report(make_result(wrong=dict.fromkeys(range(5), 1.003))).passed, "by the tolerance alone it does"


def test_a_wrong_weight_fails_a_model_whose_logits_agree() -> None:
    wrong = TensorCheck("model.embed_tokens.weight", "copy", 10, different=3)
    report = make_report(make_result(), noise=make_noise(), weights=(TensorCheck("x", "copy", 10), wrong))
    assert not report.passed
    assert "the logits agree to 1.00e-05 within rounding, but 1 of 2 tensors do not" in str(report)
    assert "model.embed_tokens.weight differs in 3 of 10 elements" in str(report)


def test_a_report_on_weights_fails_by_a_tensor() -> None:
    good, bad = TensorCheck("good", "copy", 10), TensorCheck("bad", "copy", 10, different=1, max_abs=0.5)
    assert make_report(level="weights", weights=(good,)).passed
    report = make_report(level="weights", weights=(good, bad))
    assert not report.passed
    assert "1 of 2 tensors" in str(report)
    assert "1 of 10" in str(report)
    missing = make_report(level="weights", weights=(TensorCheck("x", "copy", 0, fault="is missing"),))
    assert not missing.passed
    assert "is missing\n" in str(missing), "and no distance beside it"


def test_a_fault_only_in_decoding_is_reported_as_such() -> None:
    assert "only decoding fails" in str(make_report(make_result(), make_result(path="decode", wrong={0: 2.0})))


def test_a_fault_only_in_batches_is_reported_as_such() -> None:
    assert "only batches fail" in str(make_report(make_result(), make_result(path="batch", wrong={0: 2.0})))


def test_the_worst_token_is_shown_with_what_either_side_ranks_first() -> None:
    report = make_report(make_result(wrong={2: -1.0}))
    (result,) = report.results
    ours, theirs = result.errors.likeliest_ours[2], result.errors.likeliest[2]
    assert f"'random' at position 2, where we rank token {ours} first, the reference {theirs}" in str(report)
    assert ours != theirs
    document = json.loads(report.to_json())["results"][0]
    assert (document["likeliest_ours"][2], document["likeliest"][2]) == (ours, theirs)
    assert f"where both rank token {result.errors.likeliest[1]} first" in str(make_report(make_result(wrong={1: 2.0})))


def test_weights_of_the_layer_that_departs_are_cleared_or_blamed() -> None:
    failed = make_result(wrong={0: 2.0})
    good, bad = TensorCheck("model.layers.1.x", "copy", 10), TensorCheck("model.layers.1.y", "copy", 10, different=3)
    cleared = str(make_report(failed, layers=LAYERS, first_departure=2, weights=(good,)))
    assert "the 1 tensors of layers.1 match their source" in cleared
    assert "transform" not in cleared, "a table of what is right would only be in the way"
    blamed = str(make_report(failed, layers=LAYERS, first_departure=2, weights=(good, bad)))
    assert "its weights are wrong: model.layers.1.y differs in 3 of 10 elements" in blamed


def test_an_original_that_is_not_finite_is_blamed_and_not_the_port() -> None:
    there = OperationError(
        "q_proj", np.inf, np.inf, "random", 3, True, "not finite in the reference itself, at 5 of 5 tokens"
    )
    error = LayerError(1, "layers.0", np.inf, np.inf, "random", 3, (there,))
    weights = (TensorCheck("x", "copy", 10),)
    report = make_report(make_result(wrong={0: np.nan}), layers=(LAYERS[0], error), first_departure=1, weights=weights)
    assert "the original is damaged, or overflows in float32" in str(report)
    assert "match their source" not in str(report)


def test_level_logits_says_how_to_find_the_operation() -> None:
    stream = (OperationError("attention residual", 0.5, 0.25, "random", 3, True, "every token"),)
    halves = LayerError(1, "layers.0", 0.5, 0.5, "random", 3, stream)
    report = make_report(make_result(wrong={0: 2.0}), layers=(LAYERS[0], halves), first_departure=1)
    assert "the fault is in the attention; --level layers names the operation" in str(report)


def test_a_drift_without_a_departing_block_is_reported_with_its_near_ties() -> None:
    ties = RoutingCheck(tokens=10, agreeing=9, margin=1e-7, near_ties=0, wrong=0)
    drifting = LayerError(1, "layers.0", 0.5, 0.1, "random", 3, (), ties)
    text = str(make_report(make_result(wrong={0: 2.0}), layers=(LAYERS[0], drifting), first_departure=1))
    assert "no operation of it departs alone" in text
    assert "1 token chose other experts" in text
    assert "1.0e-07: a near tie" in text


def test_a_drift_in_a_short_dtype_is_put_down_to_rounding() -> None:
    drifting = LayerError(1, "layers.0", 0.5, 0.1, "random", 3)
    report = make_report(make_result(wrong={0: 2.0}), layers=(LAYERS[0], drifting), first_departure=1)
    half = dataclasses.replace(report, setup=dataclasses.replace(report.setup, dtype="float16"))
    assert "rounding to float16 accumulates over the layers" in str(half)
    assert "adds up" not in str(report)


def test_operations_that_agree_are_within_rounding() -> None:
    assert "no layer departs by more than rounding" in str(make_report(make_result(wrong={0: 2.0}), layers=LAYERS[:2]))


def test_tokens_that_are_not_finite_are_counted() -> None:
    assert "2 of 5 tokens have logits that are not finite" in str(
        make_report(make_result(wrong={0: np.nan, 1: np.inf}))
    )
