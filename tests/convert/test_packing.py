"""Conversions to int4 and int8, and of GPTQ, AWQ and compressed-tensors checkpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from community import Community, Recipe, write_community

from convert.hub_folder import change_config, read_tensors
from msport import convert_checkpoint
from msport.architectures import ARCHITECTURES, QUANTISED, Weight, load_config
from msport.checkpoint import Checkpoint, open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT8, Array, DType, cast
from msport.encodings import Grouped, find
from msport.encodings.quantise import quantise
from msport.errors import CheckpointError, ConfigError, UnsupportedError, UsageError
from msport.progress import Step
from msport.sample import write_sample

RECIPES = [
    Recipe("gptq"),
    Recipe("gptq", bits=8, group=32, symmetric=False),
    Recipe("gptq", group=-1, zero_shift=0),
    Recipe("gptq", symmetric=False, act_order=True),
    Recipe("awq", symmetric=False),
    Recipe("compressed-tensors"),
    Recipe("compressed-tensors", bits=8, group=-1),
    Recipe("compressed-tensors", group=32, symmetric=False, act_order=True),
]


def weights_of(folder: Path) -> list[Weight]:
    config = load_config(folder)
    return ARCHITECTURES[config.architecture].weights(config)


def decoded(checkpoint: Checkpoint, name: str, shape: tuple[int, ...], dtype: DType = FLOAT16) -> Array:
    """A weight ``[..., outputs, inputs]`` of a converted folder."""
    encoding = find(name, shape, checkpoint.tensors)
    assert isinstance(encoding, Grouped)
    parts = [checkpoint.read(part.name) for part in encoding.parts(name, shape)]
    return encoding.decode(parts, dtype)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_community_checkpoint_stays_packed_and_every_value_is_the_library_s(recipe: Recipe, tmp_path: Path) -> None:
    source = write_community(tmp_path / "source", recipe)
    manifest = convert_checkpoint(source.folder, tmp_path / "out", verify=True)
    assert manifest.dtype == f"int{recipe.bits}"
    with open_checkpoint(tmp_path / "out") as converted:
        for name, expected in source.decoded.items():
            np.testing.assert_array_equal(decoded(converted, name, expected.shape), expected)


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_community_checkpoint_is_decoded_if_a_plain_dtype_is_asked_for(recipe: Recipe, tmp_path: Path) -> None:
    source = write_community(tmp_path / "source", recipe)
    convert_checkpoint(source.folder, tmp_path / "out", dtype="float16")
    result = read_tensors(tmp_path / "out")
    for name, expected in source.decoded.items():
        np.testing.assert_array_equal(result[name][1], expected)


def stacked(source: Community, layer: int) -> dict[str, Array]:
    """The experts of a Qwen3-MoE layer ``[E, outputs, inputs]``, gate before up."""
    prefix = f"model.layers.{layer}.mlp.experts"

    def all_of(kind: str) -> Array:
        return np.stack([source.decoded[f"{prefix}.{expert}.{kind}_proj.weight"] for expert in range(16)])

    return {
        f"{prefix}.gate_up_proj": np.concatenate([all_of("gate"), all_of("up")], axis=1),
        f"{prefix}.down_proj": all_of("down"),
    }


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_packed_layers_of_experts_are_stacked(method: str, tmp_path: Path) -> None:
    recipe = Recipe(method, group=32, symmetric=method != "awq")
    source = write_community(tmp_path / "source", recipe, family="qwen3-moe")
    convert_checkpoint(source.folder, tmp_path / "out", workers=2)
    with open_checkpoint(tmp_path / "out") as converted:
        for name, expected in stacked(source, 1).items():
            np.testing.assert_array_equal(decoded(converted, name, expected.shape), expected)


def test_layers_in_different_act_orders_cannot_be_stacked_and_stay_packed(tmp_path: Path) -> None:
    source = write_community(tmp_path / "source", Recipe("gptq", group=32, act_order=True), family="qwen3-moe")
    with pytest.raises(UsageError, match=r"up_proj.*its act-order is not that of the layer it is stacked with"):
        convert_checkpoint(source.folder, tmp_path / "out")
    convert_checkpoint(source.folder, tmp_path / "out", dtype="float16")
    result = read_tensors(tmp_path / "out")
    for name, expected in stacked(source, 1).items():
        np.testing.assert_array_equal(result[name][1], expected.swapaxes(1, 2))


def test_a_config_without_the_method_or_tensors_without_the_config_are_refused(tmp_path: Path) -> None:
    source = write_community(tmp_path / "source", Recipe("gptq"))
    change_config(source.folder, quantization_config=None)
    with pytest.raises(ConfigError, match="are in gptq, but there is no quantization_config"):
        convert_checkpoint(source.folder, tmp_path / "out")
    plain = write_sample("llama", tmp_path / "plain")
    change_config(plain, quantization_config=Recipe("awq").config())
    with pytest.raises(CheckpointError, match=r"says awq, but no tensor ends in \.qweight"):
        convert_checkpoint(plain, tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "dtype", "stored"),
    [("llama", "int4", "bfloat16"), ("qwen3-moe", "int8", "float32"), ("gpt-oss", "int4", "bfloat16")],
)
@pytest.mark.parametrize("zero_points", [False, True])
def test_linear_layers_and_experts_are_quantised_and_nothing_else(
    family: str, dtype: str, stored: str, zero_points: bool, tmp_path: Path
) -> None:
    source = write_sample(family, tmp_path / "source", dtype=stored)
    convert_checkpoint(source, tmp_path / "plain", dtype="float32")
    convert_checkpoint(source, tmp_path / "out", dtype=dtype, zero_points=zero_points, verify=True)
    plain, result = read_tensors(tmp_path / "plain"), read_tensors(tmp_path / "out")
    encoding = Grouped(int(dtype[-1]), offsets=zero_points)
    for weight in weights_of(source):
        _, values = plain[weight.name]
        if weight.role not in QUANTISED:
            assert result[weight.name][0].name == stored
            continue
        matrix = values.swapaxes(-1, -2) if values.ndim == 3 else values
        expected = quantise(np.ascontiguousarray(matrix), FLOAT32, encoding)
        for part, array in zip(encoding.parts(weight.name, weight.matrix), expected, strict=True):
            np.testing.assert_array_equal(result[part.name][1], array)
    assert "model.embed_tokens.weight" in result


@pytest.mark.parametrize(("tied", "name"), [(False, "lm_head.weight"), (True, "model.embed_tokens.weight")])
def test_the_head_is_quantised_if_that_is_asked_for(tied: bool, name: str, tmp_path: Path) -> None:
    source = write_sample("llama", tmp_path / "source", overrides={"tie_word_embeddings": tied})
    for dtype in ("int4", "auto"):
        tensors = convert_checkpoint(source, tmp_path / dtype, dtype=dtype, head="int8").tensors
        assert tensors[f"{name}_codes"].dtype == INT8
        assert name not in tensors
        assert ("model.embed_tokens.weight" in tensors) is not tied
    with pytest.raises(UsageError, match="head 'int3' is not known"):
        convert_checkpoint(source, tmp_path / "out", head="int3")


def test_what_is_packed_already_stays_as_it_is(tmp_path: Path) -> None:
    source = write_sample("gpt-oss", tmp_path / "source")
    manifest = convert_checkpoint(source, tmp_path / "out", dtype="int4")
    assert "model.layers.0.mlp.experts.gate_up_proj_blocks" in manifest.tensors
    assert "model.layers.0.self_attn.q_proj.weight_codes" in manifest.tensors
    again = convert_checkpoint(tmp_path / "out", tmp_path / "again", dtype="int4")
    assert again.tensors == manifest.tensors


def test_memory_and_workers_do_not_change_a_bit(tmp_path: Path) -> None:
    source = write_sample("qwen3-moe", tmp_path / "source", overrides={"hidden_size": 512, "intermediate_size": 1024})
    many = convert_checkpoint(source, tmp_path / "many", dtype="int4", workers=4)
    one = convert_checkpoint(source, tmp_path / "one", dtype="int4", workers=1, max_memory="78MB")
    assert many.tensors == one.tensors


@pytest.mark.parametrize("after", [1, 7, 30])
def test_an_interrupted_quantisation_goes_on_to_the_same_bytes(after: int, tmp_path: Path) -> None:
    source = write_sample("qwen3-moe", tmp_path / "source")
    expected = convert_checkpoint(source, tmp_path / "whole", dtype="int4")
    seen: list[Step] = []

    def interrupt(step: Step) -> None:
        seen.append(step)
        if len(seen) > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_checkpoint(source, tmp_path / "out", dtype="int4", workers=1, progress=interrupt)
    resumed: list[Step] = []
    result = convert_checkpoint(source, tmp_path / "out", dtype="int4", progress=resumed.append)
    assert result.tensors == expected.tensors
    assert resumed[0].done > 0, "what was written is not made again"


@pytest.mark.parametrize(
    ("group_size", "message"),
    [(48, "48"), (0, "group_size must be at least 1"), (33, "33")],
)
def test_a_group_size_that_does_not_fit_is_refused(group_size: int, message: str, tmp_path: Path) -> None:
    source = write_sample("llama", tmp_path / "source")
    with pytest.raises((UnsupportedError, UsageError), match=message):
        convert_checkpoint(source, tmp_path / "out", dtype="int4", group_size=group_size)
    assert not (tmp_path / "out").exists()


def test_quantised_values_are_near_the_original_ones(tmp_path: Path) -> None:
    source = write_sample("llama", tmp_path / "source")
    convert_checkpoint(source, tmp_path / "out", dtype="int8")
    name = "model.layers.0.self_attn.q_proj.weight"
    _, original = read_tensors(source)[name]
    wide = cast(original, BFLOAT16, FLOAT32)
    with open_checkpoint(tmp_path / "out") as converted:
        values = decoded(converted, name, original.shape, FLOAT32)
    # Half a step of 1 / 120 of the largest value of a group (the search goes so far), which is
    # rounded to bfloat16.
    groups = np.abs(wide).reshape(len(wide), -1, 32).max(-1, keepdims=True)
    assert (np.abs(values - wide).reshape(len(wide), -1, 32) <= groups / 120 * 0.51 + 1e-6).all()
