"""Every family's network is the one that its table of tensors fills."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import pytest

from msport.architectures import ARCHITECTURES, Architecture
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.network import build_network


@pytest.mark.parametrize("family", ARCHITECTURES.values(), ids=lambda family: family.title)
def test_a_network_has_the_weights_of_its_table_and_no_others(family: Architecture) -> None:
    config = family.parse(family.sample_config(), Path("config.json"))
    network = build_network(config, CacheShape(1, 32, 16, ms.float32))
    found = {parameter.name: tuple(parameter.shape) for parameter in network.get_parameters() if parameter.has_init}
    assert found == {weight.name: weight.shape for weight in family.weights(config)}
