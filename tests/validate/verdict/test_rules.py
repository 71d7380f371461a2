"""The pass rule: an error passes by what rounding does to the reference, never by a constant alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from msport.validate.compare.layers import LayerError, OperationError
from msport.validate.compare.metrics import concatenate, measure
from msport.validate.compare.results import PromptResult
from msport.validate.compare.tensor_check import TensorCheck
from msport.validate.prompts import Prompt
from msport.validate.reference.noise import FIELDS, Noise, fields_of, noise_lengths
from msport.validate.verdict.rules import FLOAT32, HALF, HALF_MIXTURE, LARGEST_FACTOR, Judgement, judge, passes

TOKENS, VOCAB = 40, 2000
PROMPTS = tuple(Prompt(name, tuple(range(TOKENS)), number=n) for n, name in enumerate(("first", "second")))
SIZE = 1e-6


def _reference(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((TOKENS, VOCAB)) * 3


def _moved(number: int, scale: float | np.ndarray, seed: int) -> np.ndarray:
    """The reference's logits with an error of relative size `scale`."""
    reference = _reference(number)
    direction = np.random.default_rng(seed).standard_normal(reference.shape) * 3
    return reference + direction * np.reshape(scale, (-1, 1))


def _noise(size: float = SIZE, tokens: int = TOKENS, dtype: str = "float32", router: tuple[float, ...] = ()) -> Noise:
    measured = (measure(_reference(n)[:tokens], _moved(n, size, 7 + n)[:tokens]) for n in range(len(PROMPTS)))
    return Noise(dtype, tuple(fields_of(errors) for errors in measured), (), router)


def _results(ours: Mapping[int, np.ndarray], path: str = "prefill") -> list[PromptResult]:
    return [PromptResult(PROMPTS[n], path, 0, measure(_reference(n), logits)) for n, logits in ours.items()]


def _judge(scale: Any, **options: Any) -> Judgement:
    """Two prompts, both with errors of `scale`, by noise of `SIZE`."""
    options = {"noise": _noise(), "tolerance": 1e-2} | options
    return judge(_results({n: _moved(n, scale, 20 + n) for n in range(2)}), **options)


def _one_token(index: int, scale: float) -> np.ndarray:
    scales = np.full(TOKENS, SIZE)
    scales[index] = scale
    return scales


def test_an_error_as_large_as_the_noise_passes() -> None:
    judgement = _judge(SIZE)
    assert judgement.passed
    assert judgement.rule == "rounding"
    assert judgement.ratio_of("first") == pytest.approx(1.0, abs=0.1)
    assert judgement.ratio_of("batch") is None
    assert {check.statistic for check in judgement.checks} == {
        "median",
        "largest",
        "median of 'first'",
        "median of 'second'",
    }


def test_the_median_of_all_tokens_may_be_a_small_factor_above_the_noise() -> None:
    assert _judge(0.9 * FLOAT32.median * SIZE).passed
    judgement = _judge(1.2 * FLOAT32.median * SIZE)
    assert not judgement.passed
    assert {check.statistic for check in judgement.checks if not check.passed} == {"median"}
    assert not any(tokens.any() for tokens in judgement.failing), "no token fails on its own"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_allows_less_above_its_noise_which_hides_the_order_of_sums(dtype: str) -> None:
    noise = _noise(dtype=dtype)
    assert _judge(0.9 * HALF.median * SIZE, noise=noise).passed
    assert not _judge(1.2 * HALF.median * SIZE, noise=noise).passed


@pytest.mark.parametrize(("router", "passed"), [((0.0, 0.0), False), ((0.0, 1e-3), True)])
def test_one_prompt_of_a_mixture_in_half_precision_may_have_more_tokens_with_other_experts(
    router: tuple[float, ...], passed: bool
) -> None:
    assert 1.2 * HALF.prompt < HALF_MIXTURE.prompt
    prefill = _results({n: _moved(n, SIZE, 20 + n) for n in range(2)})
    decode = _results({1: _moved(1, 1.2 * HALF.prompt * SIZE, 21)}, "decode")
    noise = _noise(dtype="float16", router=router)
    assert judge([*prefill, *decode], noise, 1e-2).passed is passed


def test_one_token_may_be_a_larger_factor_above_the_noise_and_is_marked_beyond_it() -> None:
    assert _judge(_one_token(5, 0.8 * LARGEST_FACTOR * SIZE)).passed
    judgement = _judge(_one_token(5, 3 * LARGEST_FACTOR * SIZE))
    assert not judgement.passed
    assert [np.flatnonzero(tokens).tolist() for tokens in judgement.failing] == [[5], [5]]


def test_one_prompt_that_departs_as_a_whole_fails_though_the_median_of_all_does_not() -> None:
    ours = {0: _moved(0, SIZE, 20), 1: _moved(1, 1.2 * FLOAT32.prompt * SIZE, 21)}
    judgement = judge(_results(ours), _noise(), 1e-2)
    failed = {check.statistic for check in judgement.checks if not check.passed}
    assert failed == {"median of 'second'"}


def test_a_batch_is_judged_as_a_whole_by_the_noise_of_all_prompts() -> None:
    ours = {n: _moved(n, SIZE, 20 + n) for n in range(2)}
    few = [
        PromptResult(r.prompt, "batch", 0, r.errors[:5])
        for r in _results({n: _moved(n, 5 * SIZE, 30 + n) for n in range(2)})
    ]
    judgement = judge([*_results(ours), *few], _noise(), 1e-2)
    assert judgement.passed
    assert judgement.ratio_of("batch") == pytest.approx(5.0, abs=0.5)
    assert [check.statistic for check in judgement.checks].count("median of 'batch'") == 3


def test_the_tolerance_holds_at_every_token_for_any_noise() -> None:
    loud = _noise(0.05)
    assert _judge(0.05, noise=loud, tolerance=0.2).passed
    judgement = _judge(0.05, noise=loud, tolerance=1e-2)
    assert judgement.within_rounding
    assert not judgement.passed
    assert all(tokens.all() for tokens in judgement.failing)


def test_the_rule_of_the_tolerance_asks_for_nothing_else() -> None:
    judgement = _judge(5e-3, noise=None)
    assert judgement.passed
    assert (judgement.rule, judgement.checks) == ("tolerance", ())
    assert not _judge(_one_token(5, 2e-2), noise=None).passed


@pytest.mark.parametrize("rule", ["rounding", "tolerance"])
def test_a_token_that_is_not_finite_always_fails(rule: str) -> None:
    ours = _moved(0, SIZE, 20)
    ours[3, 0] = np.nan
    judgement = judge(_results({0: ours}), _noise() if rule == "rounding" else None, np.inf)
    assert not judgement.passed
    assert np.flatnonzero(judgement.failing[0]).tolist() == [3]


def test_a_lost_top_1_fails_where_the_reference_is_sure() -> None:
    """The swap that an earlier rule let pass: 200,000 logits, a lead of 5 reversed, relative L2 7.9e-3."""
    reference = np.random.default_rng(0).standard_normal((1, 200_000)) * 2
    reference[0, :2] = 20.0, 15.0
    swapped = reference.copy()
    swapped[0, :2] = 15.0, 20.0
    errors = measure(reference, swapped)
    assert errors.relative_l2[0] < 1e-2
    assert errors.kl[0] > 4.0
    quiet = measure(reference, reference + np.random.default_rng(1).standard_normal(reference.shape) * 1e-5)
    prompt = Prompt("swapped", (0,))
    noise = Noise("float32", (fields_of(quiet),), (), ())
    judgement = judge([PromptResult(prompt, "prefill", 0, errors)], noise, 1e-2)
    assert not judgement.passed
    assert judgement.swapped == 1
    assert judgement.failing[0].all()


def test_no_swap_of_the_first_two_passes_unless_rounding_explains_it() -> None:
    generator = np.random.default_rng(2)
    flagged = 0
    for _ in range(200):
        reference = generator.standard_normal((1, 50)) * 3
        first, second = np.argsort(-reference[0])[:2]
        swapped = reference.copy()
        swapped[0, [first, second]] = reference[0, [second, first]]
        prompt = Prompt("swapped", (0,))
        quiet = measure(reference, reference + generator.standard_normal(reference.shape) * 1e-6)
        noise = Noise("float32", (fields_of(quiet),), (), ())
        judgement = judge([PromptResult(prompt, "prefill", 0, measure(reference, swapped))], noise, 10.0)
        flagged += not judgement.passed
    assert flagged == 200


def test_a_swap_that_the_noise_makes_itself_passes() -> None:
    reference = _reference(0)
    first, second = np.argsort(-reference, axis=-1)[:, :2].T
    rows = np.arange(TOKENS)
    reference[rows, second] = reference[rows, first] - SIZE
    ours, noisy = reference.copy(), reference + np.random.default_rng(3).standard_normal(reference.shape) * 2 * SIZE
    ours[rows, second] += 2 * SIZE
    noise = Noise("float32", (fields_of(measure(reference, noisy)),), (), ())
    judgement = judge([PromptResult(PROMPTS[0], "prefill", 0, measure(reference, ours))], noise, 1e-2)
    assert judgement.swapped == 0
    assert judgement.passed


def test_a_token_whose_experts_nearly_tie_is_excused_with_those_that_see_its_keys() -> None:
    scales = np.full(TOKENS, SIZE)
    scales[30] = 0.3
    scales[31:] = 1e-3
    near = np.zeros(TOKENS, bool)
    near[30] = True
    assert not _judge(scales).passed
    judgement = _judge(scales, undecided={0: near, 1: near})
    assert judgement.passed
    assert (judgement.excused, judgement.following) == (2, 2 * (TOKENS - 31))
    scales[29] = 1e-4
    assert not _judge(scales, undecided={0: near, 1: near}).passed, "one before it is none of these"
    scales[29] = SIZE
    assert not _judge(scales, undecided={0: near}).passed, "the other prompt has no such token"


def test_by_the_tolerance_alone_only_the_token_of_a_near_tie_is_excused() -> None:
    scales = np.full(TOKENS, SIZE)
    scales[30] = 0.3
    near = np.zeros(TOKENS, bool)
    near[30] = True
    assert _judge(scales, noise=None, undecided={0: near, 1: near}).passed
    scales[33] = 2e-2
    assert not _judge(scales, noise=None, undecided={0: near, 1: near}).passed


def test_a_fault_before_a_near_tie_is_not_excused_by_it() -> None:
    near = np.zeros(TOKENS, bool)
    near[30] = True
    judgement = _judge(1e-3, undecided={0: near, 1: near})
    assert not judgement.passed
    assert all(tokens[:30].all() for tokens in judgement.failing)


def test_tokens_after_a_near_tie_count_in_the_median_of_all_so_that_no_fault_hides_behind_it() -> None:
    near = np.zeros(TOKENS, bool)
    near[0] = True
    judgement = _judge(1e-3, undecided={0: near, 1: near})
    assert [check.statistic for check in judgement.checks if not check.passed] == ["median"] * 3
    assert {check.statistic for check in judgement.checks} == {"median", "largest"}, "no prompt has tokens enough"


def test_errors_may_grow_with_the_position_beyond_those_that_were_measured() -> None:
    length = 4096
    prompt = Prompt("long", tuple(range(length)))
    reference = np.random.default_rng(0).standard_normal((length, 64)) * 3
    direction = np.random.default_rng(1).standard_normal(reference.shape) * 3
    positions = np.arange(length)[:, None]
    quiet = measure(reference[:100], (reference + direction * SIZE)[:100])
    noise = Noise("float32", (fields_of(quiet),), (), ())
    growing = reference + direction * SIZE * 3 * np.maximum(1.0, positions / 1024) * (positions > 2048)
    assert judge([PromptResult(prompt, "prefill", 0, measure(reference, growing))], noise, 1e-2).failing[0].sum() == 0
    early = reference + direction * SIZE * 40 * (positions < 1024)
    assert judge([PromptResult(prompt, "prefill", 0, measure(reference, early))], noise, 1e-2).failing[0].any()


def test_noise_is_measured_on_the_beginnings_of_all_prompts() -> None:
    assert noise_lengths([100, 50]) == (100, 50), "a short run is measured whole"
    lengths = noise_lengths([4400, 162, 32, 80])
    assert lengths[1:] == (162, 32, 80)
    assert 0.35 * 4674 < sum(lengths) <= 0.4 * 4674
    assert noise_lengths([1]) == (1,)


def test_no_error_passes_where_the_reference_did_not_move_at_all() -> None:
    still = Noise("float32", (np.zeros((TOKENS, len(FIELDS))),) * 2, (), ())
    assert judge(_results({n: _reference(n) for n in range(2)}), still, 1e-2).passed
    assert not _judge(SIZE, noise=still).passed


def test_pieces_of_measured_errors_are_chosen_by_slices_and_masks() -> None:
    errors = measure(_reference(0), _moved(0, SIZE, 1))
    assert len(errors[3:7]) == 4
    assert concatenate([errors[:5], errors[5:]]).relative_l2.tolist() == errors.relative_l2.tolist()


def test_an_operation_beyond_its_threshold_fails_level_layers_alone() -> None:
    def layers(departs: bool) -> list[LayerError]:
        return [LayerError(0, "", 0.0, 0.0, "first", 0, (OperationError("", 0.5, 0.5, "first", 0, departs),))]

    judgement = _judge(SIZE)
    assert passes("layers", judgement, layers(departs=False), ())
    assert not passes("layers", judgement, layers(departs=True), ())
    assert passes("logits", judgement, layers(departs=True), ())
    assert not passes("layers", judgement, (), ()), "no layer was compared"


def test_one_wrong_tensor_fails_any_level() -> None:
    right, wrong = TensorCheck("x", "copy", 10), TensorCheck("y", "copy", 10, 3)
    assert passes("weights", None, (), [right])
    assert not passes("weights", None, (), [right, wrong])
    assert not passes("logits", _judge(SIZE), (), [right, wrong])
    assert not passes("weights", None, (), ()), "nothing was compared"
