"""Bytes and operations, counted by hand for a model small enough to do so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from msport.architectures import ARCHITECTURES, ModelConfig, Weight
from msport.sizing.costs import Costs, cache_length
from msport.sizing.fit import estimate, most_that_fits

FAMILY = ARCHITECTURES["GptOssForCausalLM"]
SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": 10,
    "layer_types": None,
}
# Per layer: norms, q with bias, k and v with bias, o with bias, sinks, router.
SHARED = 2 * 32 + (64 * 32 + 64) + 2 * (32 * 32 + 32) + (32 * 64 + 32) + 4 + (8 * 32 + 8)
EXPERT = 32 * 128 + 128 + 64 * 32 + 32
HEAD = 100 * 32


@pytest.fixture
def costs() -> Costs:
    return Costs(FAMILY.parse({**FAMILY.sample_config(), **SIZES}, Path("config.json")), "float32")


def test_weight_bytes_count_every_parameter(costs: Costs) -> None:
    assert costs.weight_bytes == 4 * (2 * HEAD + 32 + 2 * (SHARED + 8 * EXPERT))


def test_a_decode_step_reads_its_own_experts_and_the_visible_cache(costs: Costs) -> None:
    weights = HEAD + 32 + 2 * (SHARED + 2 * EXPERT)
    seen = 10 + 51  # the sliding layer, and the full one at position 50
    assert costs.decode_bytes(50) == 4 * (weights + seen * 2 * 2 * 16)


def test_a_batch_reads_weights_once_and_the_experts_it_touches(costs: Costs) -> None:
    touched = 8 * (1 - (1 - 2 / 8) ** 3)
    weights = HEAD + 32 + 2 * SHARED + 2 * touched * EXPERT
    assert costs.decode_bytes(0, batch=3) == pytest.approx(4 * (weights + 3 * 2 * 2 * 2 * 16), rel=1e-4)


def test_keys_and_values_of_a_token(costs: Costs) -> None:
    assert costs.kv_bytes_per_token() == 2 * 2 * 2 * 16 * 4


def test_prefill_counts_one_head_and_every_visible_pair(costs: Costs) -> None:
    products = 2 * (32 + 2 * (SHARED + 2 * EXPERT)) * 12 + 2 * HEAD
    pairs = sum(range(1, 13)) + sum(min(n, 10) for n in range(1, 13))
    assert costs.prefill_flops(12) == products + 4 * pairs * 4 * 16


def test_caches_are_whole_chunks_or_a_ring_beside_a_chunk(costs: Costs) -> None:
    assert cache_length(None, 100, 16) == 112
    assert cache_length(10, 100, 16) == 26
    assert cache_length(500, 100, 16) == 112
    assert costs.cache_bytes(100, 3, 16) == (112 + 26) * 3 * 2 * 2 * 16 * 4


def test_a_prompt_of_any_length_counts_the_pairs_one_by_one(costs: Costs) -> None:
    def pairs(tokens: int) -> int:
        return sum(position + 1 + min(position + 1, 10) for position in range(tokens))

    for tokens in (1, 9, 10, 11, 40):
        products = 2 * (32 + 2 * (SHARED + 2 * EXPERT)) * tokens + 2 * HEAD
        assert costs.prefill_flops(tokens) == products + 4 * pairs(tokens) * 4 * 16


def test_the_table_of_weights_is_built_once_for_all_positions_and_dtypes(
    costs: Costs, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []

    def build(config: ModelConfig) -> list[Weight]:
        built.append(config)
        return FAMILY.weights(config)

    counted = Costs(replace(costs.config, vocab_size=101), "float16")  # which no other test has asked for
    monkeypatch.setitem(ARCHITECTURES, FAMILY.name, replace(FAMILY, weights=build))
    for position in range(100):
        counted.decode_bytes(position)
        counted.prefill_flops(position + 1)
    assert counted.weight_bytes == replace(counted, dtype="bfloat16").weight_bytes
    assert most_that_fits(lambda length: estimate(counted, length, 1).total, 10**6, 10**9) > 4096
    assert built == [counted.config]
