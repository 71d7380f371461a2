"""Prompts pass every window and chunk, follow their seed, and keep special tokens where they belong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from msport.architectures import ARCHITECTURES, ModelConfig
from msport.errors import ConfigError, UsageError
from msport.validate.prompts import default_prompts, given_prompts

CHUNK = 128


def _config(**changes: Any) -> ModelConfig:
    architecture = ARCHITECTURES["GptOssForCausalLM"]
    return architecture.parse(architecture.sample_config() | changes, Path("config.json"))


class _Characters:
    """A tokenizer that knows the first `vocab_size` characters, any other as 1."""

    def __init__(self, vocab_size: int = 1024) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str) -> list[int]:
        return [ord(character) if ord(character) < self.vocab_size else 1 for character in text]


def test_the_longest_prompt_passes_the_largest_window_and_two_chunks() -> None:
    for window in (24, 4096):
        longest = max(
            len(prompt.ids) for prompt in default_prompts(_config(sliding_window=window), None, prefill_chunk=CHUNK)
        )
        assert longest > window + CHUNK
        assert longest > 2 * CHUNK
        assert longest % CHUNK


def test_a_given_max_length_is_the_length_of_the_longest_prompt_and_caps_all() -> None:
    for max_length in (1, 20, 5000):
        prompts = default_prompts(_config(), _Characters(), [7], prefill_chunk=CHUNK, max_length=max_length)
        assert max(len(prompt.ids) for prompt in prompts) == max_length
        assert all(prompt.decoded < len(prompt.ids) for prompt in prompts)


def test_no_prompt_is_longer_than_the_model_allows() -> None:
    config = dataclasses.replace(_config(), max_position_embeddings=60)
    assert max(len(prompt.ids) for prompt in default_prompts(config, None, prefill_chunk=CHUNK)) == 60


def test_equal_seeds_give_equal_prompts_and_other_seeds_others() -> None:
    first, second, other = (
        default_prompts(_config(), _Characters(), [3], prefill_chunk=CHUNK, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


def test_special_tokens_are_in_their_own_prompt_and_not_among_random_ones() -> None:
    special = range(0, 1024, 2)
    prompts = {p.name: set(p.ids) for p in default_prompts(_config(), None, special, prefill_chunk=CHUNK)}
    assert not set(special) & (prompts["random"] | prompts["repeated"])
    assert set(special) & prompts["special"]
    assert prompts["special"] - set(special)


def test_special_ids_beyond_the_embedding_are_left_out() -> None:
    names = [prompt.name for prompt in default_prompts(_config(), None, [200002], prefill_chunk=CHUNK)]
    assert "special" not in names


def test_rows_of_the_embedding_that_no_token_has_are_left_out() -> None:
    prompts = default_prompts(_config(), _Characters(300), prefill_chunk=CHUNK)
    assert max(max(prompt.ids) for prompt in prompts) < 300


def test_text_comes_in_three_kinds_where_there_is_a_tokenizer() -> None:
    names = [prompt.name for prompt in default_prompts(_config(), _Characters(), prefill_chunk=CHUNK)]
    assert names == ["random", "repeated", "english", "chinese", "code"]


def test_a_repeated_prompt_is_one_token_past_the_chunk() -> None:
    repeated = default_prompts(_config(), None, prefill_chunk=CHUNK)[1]
    assert len(set(repeated.ids)) == 1
    assert len(repeated.ids) > CHUNK


def test_a_tokenizer_of_another_model_is_noticed() -> None:
    with pytest.raises(ConfigError, match="vocab_size 1024"):
        default_prompts(_config(), _Characters(70000), prefill_chunk=CHUNK)


def test_own_prompts_are_text_or_ids() -> None:
    text, ids = given_prompts(["ab", [5, 6, 7]], _config(), _Characters(), None)
    assert (text.ids, ids.ids) == ((97, 98), (5, 6, 7))
    assert (text.decoded, ids.decoded) == (1, 2)
    assert (text.text, ids.text) == ("ab", None)


@pytest.mark.parametrize(
    ("prompts", "reason"),
    [
        ([], "list of prompts is empty"),
        ([[]], "at least one"),
        ([[1024]], "0 to 1023"),
        ([[-1]], "0 to 1023"),
        ([[1] * 11], "max_length 10"),
        (["text"], "no tokenizer.json"),
    ],
)
def test_an_own_prompt_that_cannot_be_run_is_refused(prompts: list[Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        given_prompts(prompts, _config(), None, 10)


def test_a_text_of_no_token_is_refused() -> None:
    with pytest.raises(UsageError, match="prompt 1 is empty"):
        given_prompts([""], _config(), _Characters(), None)
