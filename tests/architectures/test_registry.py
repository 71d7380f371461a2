"""Which family a config.json names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from msport.architectures import ARCHITECTURES, Architecture, get_architecture
from msport.architectures.registry import nearest
from msport.errors import ConfigError, UnsupportedError

WHERE = Path("model/config.json")


@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda architecture: architecture.title)
def test_a_sample_config_names_its_family_and_fills_its_table(architecture: Architecture) -> None:
    data = architecture.sample_config()
    assert get_architecture(data, WHERE) is architecture
    config = architecture.parse(data, WHERE)
    weights = architecture.weights(config)
    assert config.architecture == architecture.name
    assert len(config.windows) == config.num_hidden_layers
    sources = Counter(matrix.name for weight in weights for matrix in weight.forms[0].matrices)
    assert max(sources.values()) == 1, "a tensor of the Hub makes one parameter"
    assert max(Counter(weight.name for weight in weights).values()) == 1
    assert not {row.name for row in architecture.dropped(config)} & set(sources)


def test_an_unknown_architecture_is_refused_with_those_there_are_and_the_nearest() -> None:
    data = {**ARCHITECTURES["Qwen3MoeForCausalLM"].sample_config(), "architectures": ["Qwen3NextForCausalLM"]}
    with pytest.raises(UnsupportedError) as error:
        get_architecture(data, WHERE)
    for architecture in ARCHITECTURES.values():
        assert f"{architecture.title} ({architecture.name})" in str(error.value)
    assert str(error.value).endswith("nearest by its config is Qwen3-MoE")


@pytest.mark.parametrize("title", [architecture.title for architecture in ARCHITECTURES.values()])
def test_every_family_is_nearest_to_itself(title: str) -> None:
    architecture = next(known for known in ARCHITECTURES.values() if known.title == title)
    assert nearest(architecture.sample_config()).title == title


def test_the_first_supported_of_several_architectures_is_taken() -> None:
    data = {**ARCHITECTURES["LlamaForCausalLM"].sample_config(), "architectures": ["Custom", "LlamaForCausalLM"]}
    assert get_architecture(data, WHERE).title == "Llama"


@pytest.mark.parametrize("names", [None, [], "LlamaForCausalLM", [1]])
def test_architectures_must_be_a_list_of_names(names: object) -> None:
    with pytest.raises(ConfigError, match="'architectures' must be a list of names"):
        get_architecture({"architectures": names}, WHERE)


def test_a_model_type_of_another_family_is_a_contradiction() -> None:
    data = {**ARCHITECTURES["LlamaForCausalLM"].sample_config(), "model_type": "mistral"}
    with pytest.raises(ConfigError, match="'model_type' is 'mistral', not 'llama'"):
        get_architecture(data, WHERE)
