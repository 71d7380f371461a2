"""A suite is exactly the workloads that its name promises, and a user's options change it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.made_reports import CONFIG
from msport.bench.suites import SUITES, Group, choose_shape, plan_groups
from msport.errors import UsageError


def _plan(
    suite: str | None, folder: Path = Path(), max_length: int | None = None, **asked: object
) -> tuple[Group, ...]:
    return plan_groups(suite, choose_shape(suite, CONFIG, **asked), folder, CONFIG, max_length)


def test_without_a_suite_every_batch_runs_every_prompt_over_caches_for_the_longest() -> None:
    groups = _plan(None, prompts=(64, 128), batches=(4, 1), new_tokens=8)
    assert [group.batch for group in groups] == [1, 4]
    assert [[work.prompt_tokens for work in group.workloads] for group in groups] == [[64, 128], [64, 128]]
    assert {group.max_length for group in groups} == {136}
    assert not any(group.optional for group in groups)


def test_the_default_is_one_prompt_of_128_tokens() -> None:
    (group,) = _plan(None)
    assert [(work.prompt_tokens, work.new_tokens, work.batch) for work in group.workloads] == [(128, 64, 1)]


def test_the_grid_is_the_published_one() -> None:
    groups = _plan("grid")
    assert [group.batch for group in groups] == [1, 2, 4]
    assert [work.prompt_tokens for work in groups[0].workloads] == [64, 128, 256, 512]
    assert {work.new_tokens for group in groups for work in group.workloads} == {128}


def test_the_mixed_suite_is_five_texts_with_the_published_number_of_runs(tiny_checkpoint: Path) -> None:
    shape = choose_shape("mixed", CONFIG)
    assert (shape.new_tokens, shape.warmup, shape.repeats) == (120, 2, 5)
    config = replace(CONFIG, vocab_size=512)
    (group,) = plan_groups("mixed", shape, tiny_checkpoint, config, None)
    assert [work.name for work in group.workloads] == ["chinese", "english", "code", "reasoning", "long context"]
    for workload in group.workloads:
        assert workload.ids is not None
        assert workload.prompt_tokens == len(workload.ids)
    long, *others = sorted(group.workloads, key=lambda work: -work.prompt_tokens)
    assert long.name == "long context"
    assert long.prompt_tokens > 4 * max(work.prompt_tokens for work in others)


def test_text_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no tokenizer\.json"):
        _plan("mixed", tmp_path)


def test_a_text_longer_than_the_model_is_cut(tiny_checkpoint: Path) -> None:
    config = replace(CONFIG, vocab_size=512, max_position_embeddings=200)
    (group,) = plan_groups("mixed", choose_shape("mixed", config), tiny_checkpoint, config, None)
    assert max(work.length for work in group.workloads) == 200


def test_prefill_and_decode_are_measured_over_growing_prompts() -> None:
    (group,) = _plan("prefill-decode")
    assert [work.prompt_tokens for work in group.workloads] == [64, 128, 256, 512, 1024, 2048]


def test_prompts_of_a_suite_that_the_model_has_no_positions_for_are_left_out() -> None:
    config = replace(CONFIG, max_position_embeddings=600)
    (group,) = plan_groups("prefill-decode", choose_shape("prefill-decode", config), Path(), config, None)
    assert [work.prompt_tokens for work in group.workloads] == [64, 128, 256, 512]


def test_the_memory_suite_goes_from_one_sequence_to_the_models_limit_in_doublings() -> None:
    config = replace(CONFIG, max_position_embeddings=5000)
    groups = plan_groups("memory", choose_shape("memory", config), Path(), config, None)
    assert [(group.workloads[0].name, group.batch, group.max_length) for group in groups] == [
        ("single", 1, 144),
        ("batch", 4, 144),
        ("long context", 1, 1024),
        ("long context", 1, 2048),
        ("long context", 1, 4096),
        ("long context", 1, 5000),
    ]
    assert all(group.workloads[0].length == group.max_length for group in groups)
    assert [group.optional for group in groups] == [False, False, True, True, True, True]


def test_a_length_that_was_asked_for_is_the_memory_suites_last_and_is_not_left_out() -> None:
    groups = _plan("memory", max_length=1500)
    assert [group.max_length for group in groups] == [144, 144, 1024, 1500]
    assert not any(group.optional for group in groups)


@pytest.mark.parametrize("suite", SUITES)
def test_options_change_a_suite(suite: str, tiny_checkpoint: Path) -> None:
    config = replace(CONFIG, vocab_size=512)
    shape = choose_shape(suite, config, new_tokens=3, repeats=1, warmup=0)
    groups = plan_groups(suite, shape, tiny_checkpoint, config, 1024 if suite == "memory" else None)
    assert {work.new_tokens for group in groups for work in group.workloads} == {3}
    assert (shape.repeats, shape.warmup) == (1, 0)


@pytest.mark.parametrize(
    ("suite", "asked", "message"),
    [
        ("everything", {}, "suite 'everything' is not one of mixed, grid, prefill-decode, memory"),
        (None, {"processes": 0}, "processes must be at least 1, not 0"),
        (None, {"batches": ()}, "at least one batch"),
        (None, {"prompts": (10**6,)}, "exceed the model's max_position_embeddings"),
        ("mixed", {"prompts": (64,)}, "the prompts of suite 'mixed' are texts"),
        ("grid", {"prompts": (64, 10**6)}, "exceed the model's max_position_embeddings"),
    ],
)
def test_what_cannot_be_measured_is_refused(suite: str, asked: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _plan(suite, **asked)


def test_caches_shorter_than_the_workloads_are_refused() -> None:
    with pytest.raises(UsageError, match=r"max_length \(100\) is less than prompt and new tokens \(192\)"):
        _plan(None, max_length=100)


def test_no_more_processes_are_reported_than_there_are_runs() -> None:
    assert choose_shape(None, CONFIG, repeats=1).processes == 1
    with pytest.raises(UsageError, match="processes is 8, more than the 3 repeats"):
        choose_shape(None, CONFIG, repeats=3, processes=8)
