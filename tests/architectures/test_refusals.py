"""What would change the mathematics and is not implemented is refused with the field, the file and a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from architectures.published import PUBLISHED
from msport.architectures import ARCHITECTURES, ModelConfig, get_architecture
from msport.architectures.fields import LARGEST
from msport.errors import ConfigError, MsportError, UnsupportedError

WHERE = Path("model/config.json")
TITLES = {architecture.title: architecture for architecture in ARCHITECTURES.values()}


def parse(title: str, **changes: Any) -> Any:
    """The sample config of a family with `changes`; ``...`` deletes a field."""
    data = {**TITLES[title].sample_config(), **changes}
    data = {name: value for name, value in data.items() if value is not ...}
    return get_architecture(data, WHERE).parse(data, WHERE)


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize(
    "changes",
    [
        {"partial_rotary_factor": 0.5},
        {"is_causal": False},
        {"use_bidirectional_attention": True},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}},
        {"rope_scaling": {"rope_type": "su"}},
        {"rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]}},
        {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.25}},
        {"rope_scaling": {"full_attention": {"rope_type": "default"}, "sliding_attention": {"rope_type": "default"}}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "llama_4_scaling_beta": 0.1}},
    ],
    ids=lambda changes: "-".join(f"{key}={value}" for key, value in changes.items()),
)
def test_every_family_refuses_what_none_implements(title: str, changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError) as error:
        parse(title, **changes)
    assert str(error.value).startswith(f"{WHERE}: ")


@pytest.mark.parametrize(
    ("title", "changes", "field"),
    [
        ("Llama", {"hidden_act": "gelu"}, "hidden_act"),
        ("Llama", {"sliding_window": 4096}, "sliding_window"),
        ("Mistral", {"hidden_act": "gelu"}, "hidden_act"),
        ("Mistral", {"attention_bias": True}, "attention_bias"),
        ("Mistral", {"layer_types": ["sliding_attention", "full_attention"] * 2}, "layer_types"),
        ("Mistral", {"sliding_window": 0}, "sliding_window"),
        ("Mixtral", {"attention_bias": True}, "attention_bias"),
        ("Mixtral", {"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ("Mixtral", {"layer_types": ["full_attention"] * 4}, "layer_types"),
        ("Qwen2", {"attention_bias": False}, "attention_bias"),
        ("Qwen2", {"use_sliding_window": False, "layer_types": ["sliding_attention"] * 4}, "layer_types"),
        ("Qwen2", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
        ("Qwen2", {"layer_types": ["full_attention"] * 3}, "layer_types"),
        ("Qwen3", {"hidden_act": "relu"}, "hidden_act"),
        ("Qwen3-MoE", {"mlp_only_layers": [True]}, "mlp_only_layers"),
        ("Qwen3-MoE", {"decoder_sparse_step": 0}, "decoder_sparse_step"),
        ("Qwen3-MoE", {"num_experts_per_tok": 17}, "num_experts_per_tok"),
        ("Gemma2", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("Gemma2", {"sliding_window": None}, "layer_types"),
        ("Gemma2", {"attn_logit_softcapping": -1.0}, "attn_logit_softcapping"),
        ("gpt-oss", {"attention_bias": False}, "attention_bias"),
    ],
)
def test_a_family_refuses_what_it_does_not_implement(title: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(MsportError, match=f"^{WHERE}: '{field}' "):
        parse(title, **changes)


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("field", ["vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"])
def test_a_missing_size_is_named(title: str, field: str) -> None:
    with pytest.raises(ConfigError, match=f"'{field}' is missing"):
        parse(title, **{field: ...})


@pytest.mark.parametrize(
    ("scaling", "problem"),
    [
        ({"factor": 2.0}, "'rope_scaling.rope_type' is missing"),
        ({"rope_type": "linear", "type": "yarn", "factor": 2.0}, "'rope_scaling.type' and 'rope_type' disagree"),
        ({"rope_type": "linear"}, "'rope_scaling.factor' is missing"),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}, "above 4"),
    ],
)
def test_a_contradictory_rope_is_refused(scaling: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse("Llama", rope_scaling=scaling)


def test_a_length_before_scaling_that_is_given_twice_must_be_equal() -> None:
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 4096}
    parse("Llama", rope_scaling=scaling, original_max_position_embeddings=4096)
    with pytest.raises(UnsupportedError, match="'original_max_position_embeddings' is 8192"):
        parse("Llama", rope_scaling=scaling, original_max_position_embeddings=8192)


def test_both_spellings_of_rope_are_read_and_must_agree() -> None:
    linear = {"rope_type": "linear", "factor": 2.0}
    old: ModelConfig = parse("Llama", rope_theta=5e5, rope_scaling=linear)
    new: ModelConfig = parse("Llama", rope_theta=..., rope_scaling=..., rope_parameters={**linear, "rope_theta": 5e5})
    assert old.rope == new.rope
    with pytest.raises(ConfigError, match="'rope_parameters' and 'rope_scaling' disagree"):
        parse("Llama", rope_scaling=linear, rope_parameters={**linear, "factor": 4.0})


def test_null_and_absent_differ_as_in_transformers() -> None:
    assert set(parse("Mistral", sliding_window=...).windows) == {4096}
    assert set(parse("Mistral", sliding_window=None).windows) == {None}
    assert parse("Mistral", num_attention_heads=16, num_key_value_heads=...).num_key_value_heads == 8
    assert parse("Mistral", num_attention_heads=16, num_key_value_heads=None).num_key_value_heads == 16
    assert parse("Gemma2", final_logit_softcapping=...).final_logit_softcapping == 30.0
    assert parse("Gemma2", final_logit_softcapping=None).final_logit_softcapping is None
    assert parse("Qwen3", head_dim=...).head_dim == 128


def test_qwen3_moe_reads_the_number_of_experts_under_either_name() -> None:
    assert parse("Qwen3-MoE", num_experts=..., num_local_experts=12).num_local_experts == 12


def test_qwen3_moe_is_dense_where_its_config_says_so() -> None:
    config = parse("Qwen3-MoE", num_hidden_layers=6, decoder_sparse_step=2, mlp_only_layers=[3])
    assert config.sparse_layers == (False, True, False, False, False, True)


@pytest.mark.parametrize(
    ("title", "changes", "said"),
    [
        ("Llama", {"num_hidden_layers": 10**6}, "'num_hidden_layers' must be at most 1000, not 1000000"),
        ("gpt-oss", {"num_hidden_layers": 10**9}, "'num_hidden_layers' must be at most 1000"),
        ("gpt-oss", {"num_local_experts": 10**7}, "'num_local_experts' must be at most 4096"),
        ("Mixtral", {"num_local_experts": 10**7}, "'num_local_experts' must be at most 4096"),
        ("Qwen3-MoE", {"num_experts": 10**7}, "'num_experts' must be at most 4096"),
        ("Mixtral", {"num_local_experts": 4096, "num_hidden_layers": 1000}, "is 4096 in 1000 layers; msport takes at"),
        ("Qwen3-MoE", {"num_experts": 4096, "num_hidden_layers": 1000}, "is 4096 in 1000 layers; msport takes at most"),
        ("Qwen3", {"hidden_size": 2**40}, "'hidden_size' must be at most 131072"),
        ("Qwen3", {"vocab_size": 2**40}, "'vocab_size' must be at most 1048576"),
        ("Qwen3", {"intermediate_size": 2**40}, "'intermediate_size' must be at most 1048576"),
        ("Qwen3", {"num_attention_heads": 2**40}, "'num_attention_heads' must be at most 4096"),
        ("Qwen3", {"head_dim": 2**40}, "'head_dim' must be at most 8192"),
        ("Qwen3", {"max_position_embeddings": 2**40}, "'max_position_embeddings' must be at most 2147483647"),
        ("Mistral", {"sliding_window": 10**30}, "'sliding_window' must be at most 2147483647"),
        ("Qwen3", {"hidden_size": "a" * 10**6}, "'hidden_size' must be an integer of at least 1, not 'aaaa"),
        ("Qwen3", {"rope_scaling": {"rope_type": "a" * 10**6}}, "'rope_scaling.rope_type' is 'aaaa"),
        ("Qwen3", {"model_type": ["a"] * 10**6}, "but 'model_type' is ['a', 'a'"),
    ],
)
def test_sizes_beyond_any_model_are_refused_before_a_table_is_built_of_them(
    title: str, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(MsportError) as error:
        parse(title, **changes)
    assert str(error.value).startswith(f"{WHERE}: ")
    assert said in str(error.value)
    assert len(str(error.value)) < 400


def test_the_bounds_leave_room_above_every_published_model() -> None:
    for published, _ in PUBLISHED.values():
        for name, most in LARGEST.items():
            assert 2 * published.get(name, 0) <= most
