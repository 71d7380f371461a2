"""Equal keys mean equal graphs: whatever changes a graph changes its key, or there is none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from msport import msmodels
from msport.architectures import load_config
from msport.msmodels.engine.fingerprint import fingerprint
from msport.msmodels.layers import attention
from msport.msmodels.layers.attention import Attention
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.rope import RotaryEmbedding
from msport.msmodels.network import build_network
from msport.msmodels.ops import cpu, portable


def build(folder: Path, max_length: int = 32, dtype: ms.Type = ms.float32) -> Any:
    return build_network(load_config(folder), CacheShape(1, max_length, 16, dtype))


def key(network: nn.Cell, width: int = 16, operators: str = "cpu") -> str | None:
    inputs = [Tensor(np.zeros(shape, np.int32)) for shape in ((1, width), 1, 1)]
    return fingerprint(network, inputs, operators)


@pytest.fixture
def network(folder: Path) -> Any:
    return build(folder)


def test_networks_of_one_config_have_one_key(folder: Path, network: Any) -> None:
    assert key(network) is not None
    assert key(network) == key(build(folder))


def test_shapes_dtype_and_operators_are_in_the_key(folder: Path, network: Any) -> None:
    keys = [
        key(network),
        key(network, width=1),
        key(network, operators="portable"),
        key(build(folder, max_length=48)),
        key(build(folder, dtype=ms.float16)),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)


def _change_scale(network: Any) -> None:
    network.model.layers[1].self_attn.scale *= 1.001


def _change_windows(network: Any) -> None:
    network.model.windows = (8, 16)


def _drop_sinks(network: Any) -> None:
    network.model.layers[0].self_attn.sinks = None


def _swap_layers(network: Any) -> None:
    layers = network.model.layers
    layers[0], layers[1] = layers[1], layers[0]


@pytest.mark.parametrize("change", [_change_scale, _change_windows, _drop_sinks, _swap_layers])
def test_a_changed_network_has_another_key(network: Any, change: Callable[[Any], None]) -> None:
    before = key(network)
    change(network)
    assert key(network) not in (before, None)


def test_source_text_and_environment_are_in_the_key(
    network: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = key(network)
    monkeypatch.setenv("MS_DEV_ANYTHING", "1")
    assert key(network) != before
    monkeypatch.delenv("MS_DEV_ANYTHING")
    copy = tmp_path / "msmodels"
    shutil.copytree(msmodels.__path__[0], copy)
    monkeypatch.setattr(msmodels, "__path__", [str(copy)])
    assert key(network) == before
    with (copy / "layers" / "norm.py").open("a") as source:
        source.write("# changed\n")
    assert key(network) != before


def test_operators_of_the_other_implementation_change_the_key(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(network)
    monkeypatch.setattr(attention.ops, "attention", cpu.attention)
    fused = key(network)
    monkeypatch.setattr(attention.ops, "attention", portable.attention)
    assert len({fused, key(network)}) == 2
    assert before in (fused, key(network))


def test_there_is_no_key_for_a_function_or_a_cell_from_elsewhere(network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name in ((portable, "linear"), (Attention, "construct"), (RotaryEmbedding, "construct")):
        monkeypatch.setattr(owner, name, lambda *inputs: inputs[0])
        assert key(network) is None
        monkeypatch.undo()
    assert key(network) is not None
    network.model.norm = Foreign()
    assert key(network) is None


def test_there_is_no_key_for_a_cell_with_a_hook(network: Any) -> None:
    network.model.norm.register_forward_hook(lambda *_: None)
    assert key(network) is None


class Foreign(nn.Cell):
    def construct(self, x: Tensor) -> Tensor:
        return x
