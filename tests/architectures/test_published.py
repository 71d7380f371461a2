"""Published checkpoints: their config.json is read as Transformers reads it, and every tensor is in the table."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest

from architectures.published import PUBLISHED
from msport.architectures import ModelConfig, get_architecture

WHERE = Path("config.json")


def parse(name: str) -> Any:
    data, _ = PUBLISHED[name]
    return get_architecture(data, WHERE).parse(data, WHERE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_of_tensors_adds_up_to_the_parameters_that_the_hub_counts(name: str) -> None:
    data, parameters = PUBLISHED[name]
    config: ModelConfig = parse(name)
    assert sum(prod(weight.shape) for weight in get_architecture(data, WHERE).weights(config)) == parameters


@pytest.mark.parametrize(
    ("name", "windows"),
    [
        ("meta-llama/Llama-3.1-8B", {None}),
        ("mistralai/Mistral-7B-v0.1", {4096}),
        ("mistralai/Mistral-7B-v0.3", {None}),
        ("mistralai/Mixtral-8x7B-v0.1", {None}),
        ("Qwen/Qwen2.5-7B", {None}),
        ("Qwen/Qwen3-30B-A3B", {None}),
    ],
)
def test_layers_that_are_alike_have_one_window(name: str, windows: set[int | None]) -> None:
    assert set(parse(name).windows) == windows


@pytest.mark.parametrize(("name", "window"), [("google/gemma-2-2b", 4096), ("openai/gpt-oss-20b", 128)])
def test_even_layers_slide_where_windows_alternate(name: str, window: int) -> None:
    windows = parse(name).windows
    assert set(windows[::2]) == {window}
    assert set(windows[1::2]) == {None}


def test_nemo_has_heads_smaller_than_hidden_size_over_heads() -> None:
    config = parse("mistralai/Mistral-Nemo-Base-2407")
    assert (config.head_dim, config.hidden_size // config.num_attention_heads) == (128, 160)


def test_gemma2_scales_queries_by_the_number_in_its_config() -> None:
    assert parse("google/gemma-2-2b").attention_scale == 256**-0.5
    assert parse("google/gemma-2-27b").attention_scale == 144**-0.5


def test_gemma2_ties_its_head_though_its_config_does_not_say_so() -> None:
    assert parse("google/gemma-2-2b").tie_word_embeddings


def test_qwen3_30b_has_experts_in_every_layer_and_renormalises_their_shares() -> None:
    config = parse("Qwen/Qwen3-30B-A3B")
    assert all(config.sparse_layers)
    assert config.norm_topk_prob


def test_llama_3_1_stretches_its_frequencies_eightfold() -> None:
    rope = parse("meta-llama/Llama-3.1-8B").rope
    assert (rope.rope_type, rope.factor, rope.original_max_position_embeddings) == ("llama3", 8.0, 8192)
