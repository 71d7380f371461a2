"""``quantization_config``: what is read, what is refused with its reason, and how it completes what the tensors say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from community import METHODS, Recipe, write_community

from msport.checkpoint import open_checkpoint
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16
from msport.encodings import Encoding, Plain, awq, compressed_tensors, gptq
from msport.encodings.awq import Awq
from msport.encodings.compressed_tensors import CompressedTensors
from msport.encodings.gptq import Gptq
from msport.encodings.quantization_config import Quantization, Scheme, read_quantization, undeclared
from msport.errors import CheckpointError, ConfigError, UnsupportedError

WHERE = Path("model/config.json")
WEIGHT = "model.layers.0.mlp.up_proj.weight"
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
WEIGHTS = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 128}
INT8_ACTIVATIONS = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}


def compressed(
    weights: dict[str, Any] | None = None, group: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    scheme = {"targets": ["Linear"], "weights": WEIGHTS | (weights or {}), "input_activations": None} | (group or {})
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": scheme},
        "ignore": ["lm_head"],
    } | fields


def read(fields: dict[str, Any]) -> Quantization:
    found = read_quantization({"quantization_config": fields}, WHERE)
    assert found is not None
    return found


def test_what_each_method_says_is_read() -> None:
    assert read(GPTQ) == Quantization("gptq", WHERE, (Scheme(4, 128, True),), False, 1)
    assert read(GPTQ | {"checkpoint_format": "gptq_v2", "desc_act": True, "sym": False, "bits": 8}) == Quantization(
        "gptq", WHERE, (Scheme(8, 128),), True, 0
    )
    assert read({"quant_method": "gptq", "bits": 4}) == Quantization("gptq", WHERE, (Scheme(4, -1),), None, 1)
    assert read(AWQ) == Quantization("awq", WHERE, (Scheme(4, 128),))
    assert read({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "version": "GEMM"}).schemes == (Scheme(4, 64),)
    assert read(compressed()) == Quantization("compressed-tensors", WHERE, (Scheme(4, 128, True),))
    by_channel = compressed({"strategy": "channel", "group_size": None, "num_bits": 8, "symmetric": False})
    assert read(by_channel).schemes == (Scheme(8, -1),)


@pytest.mark.parametrize(
    "config", [{}, {"quantization_config": None}, {"quantization_config": {"quant_method": "fp8"}}]
)
def test_other_methods_are_left_to_others(config: dict[str, Any]) -> None:
    assert read_quantization(config, WHERE) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (GPTQ | {"bits": 3}, "codes of 3 bits; msport reads 4 and 8"),
        (GPTQ | {"bits": 2}, "codes of 2 bits"),
        (GPTQ | {"checkpoint_format": "marlin"}, "checkpoint_format 'marlin'; msport reads gptq and gptq_v2"),
        (GPTQ | {"format": "gptq_p"}, "checkpoint_format 'gptq_p'"),
        (GPTQ | {"is_marlin_format": True}, "is_marlin_format"),
        (GPTQ | {"dynamic": {"+:.*down.*": {"bits": 8}}}, "dynamic: layers quantized in different ways"),
        (GPTQ | {"pack_dtype": "int16"}, "pack_dtype 'int16'; msport reads int32"),
        (GPTQ | {"rotation": "hadamard"}, "rotation: activations that must be rotated"),
        (GPTQ | {"adapter": {"name": "lora", "rank": 32}}, "adapter: a correction in low rank"),
        (AWQ | {"version": "gemv"}, "version 'gemv'; msport reads gemm"),
        (AWQ | {"version": "marlin"}, "version 'marlin'"),
        (AWQ | {"backend": "llm-awq"}, "backend 'llm-awq'"),
        (AWQ | {"zero_point": False}, "zero_point false"),
        (AWQ | {"bits": 8}, "codes of 8 bits; AWQ's gemm layout has 4"),
        (compressed(format="int-quantized"), "format 'int-quantized'; msport reads pack-quantized"),
        (compressed(format="float-quantized"), "format 'float-quantized'"),
        (compressed(format="nvfp4-pack-quantized"), "format 'nvfp4-pack-quantized'"),
        (compressed(format="marlin-24"), "format 'marlin-24'"),
        (compressed(group={"format": "int-quantized"}), "config_groups.group_0 has format 'int-quantized'"),
        (compressed(group={"input_activations": INT8_ACTIVATIONS}), "input_activations: activations are quantized"),
        (compressed(group={"output_activations": INT8_ACTIVATIONS}), "output_activations: outputs are quantized"),
        (compressed({"num_bits": 3}), "codes of 3 bits"),
        (compressed({"type": "float"}), "type 'float'"),
        (compressed({"strategy": "tensor", "group_size": None}), "strategy 'tensor'; msport reads group and channel"),
        (compressed({"strategy": None, "group_size": None}), "strategy 'tensor'"),
        (compressed({"strategy": "block", "block_structure": [128, 128]}), "strategy 'block'"),
        (compressed({"dynamic": True}), "dynamic scales"),
        (compressed(kv_cache_scheme={"num_bits": 8, "type": "float"}), "kv_cache_scheme: a quantized key-value cache"),
        (
            compressed(sparsity_config={"format": "sparse-24-bitmask"}),
            "sparsity_config: weights that are stored sparse",
        ),
        (compressed(transform_config={"config_groups": {"u": {}}}), "transform_config: activations that must be"),
    ],
)
def test_what_would_not_be_computed_exactly_is_refused_with_the_reason(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        read(fields)
    assert str(caught.value).startswith("model/config.json: quantization_config")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (GPTQ | {"group_size": 0}, "quantization_config.group_size must be a positive number, or -1"),
        (GPTQ | {"bits": "4"}, "quantization_config.bits must be an integer, not '4'"),
        (GPTQ | {"sym": 1}, "quantization_config.sym must be true or false, not 1"),
        (AWQ | {"version": 2}, "quantization_config.version must be a text, not 2"),
        (compressed(config_groups=[]), "quantization_config.config_groups must be an object"),
        (compressed(config_groups={}), "quantization_config.config_groups must be an object with at least one group"),
        (compressed({"group_size": None}), "config_groups.group_0.weights.group_size must be an integer, not None"),
    ],
)
def test_a_wrong_value_is_named(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^model/config.json: .*{problem}"):
        read(fields)


def test_gptq_takes_zero_points_symmetry_and_act_order_from_the_config() -> None:
    encoding = Gptq(4, 128)
    plain = replace(encoding, symmetric=True, act_order=False)
    assert read(GPTQ).adopt(encoding, WEIGHT, 512) == plain
    assert read(GPTQ | {"checkpoint_format": "gptq_v2"}).adopt(encoding, WEIGHT, 512) == replace(plain, zero_shift=0)
    assert read(GPTQ | {"desc_act": True, "sym": False}).adopt(encoding, WEIGHT, 512) == encoding
    assert read(GPTQ | {"group_size": -1}).adopt(Gptq(4, 512), WEIGHT, 512) == replace(plain, group=512)


def test_an_encoding_that_agrees_stays_as_it_is() -> None:
    assert read(GPTQ).adopt(Plain(BFLOAT16), WEIGHT, 512) == Plain(BFLOAT16)
    assert read(AWQ).adopt(Awq(128), WEIGHT, 512) == Awq(128)
    mixed = compressed()
    mixed["config_groups"]["group_1"] = {"weights": WEIGHTS | {"num_bits": 8, "strategy": "channel", "group_size": -1}}
    for encoding in (CompressedTensors(4, 128), CompressedTensors(8, 512)):
        assert read(mixed).adopt(encoding, WEIGHT, 512) == encoding


@pytest.mark.parametrize(
    ("fields", "encoding", "problem"),
    [
        (GPTQ, Awq(128), "are in awq, but quantization_config says gptq"),
        (GPTQ, Gptq(8, 128), "are with 8 bits, groups of 128, but quantization_config says 4 bits, groups of 128"),
        (AWQ, Awq(64), "are with 4 bits, groups of 64, but"),
        (
            AWQ | {"group_size": -1},
            Awq(64),
            "are with .*, groups of 64, but quantization_config says 4 bits, one scale per output",
        ),
        (
            GPTQ | {"desc_act": True},
            Gptq(4, 128, index=False),
            "are without g_idx, but quantization_config says desc_act",
        ),
        (compressed({"symmetric": False}), CompressedTensors(4, 128), "are without zero points, but"),
    ],
)
def test_tensors_that_contradict_the_config_are_refused(
    fields: dict[str, Any], encoding: Encoding, problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"^model/config.json: the tensors of '{WEIGHT}' {problem}"):
        read(fields).adopt(encoding, WEIGHT, 512)


def test_a_config_without_its_tensors_and_tensors_without_their_config_have_their_messages() -> None:
    message = r"^model/config.json: quantization_config says awq, but no tensor ends in \.qweight; download"
    with pytest.raises(CheckpointError, match=message):
        raise read(AWQ).without_tensors()
    with pytest.raises(ConfigError, match=f"tensors of '{WEIGHT}' are in gptq, but there is no quantization_config"):
        raise undeclared(Gptq(4, 128), WEIGHT, WHERE)


RECIPES = [Recipe(method) for method in METHODS]
RECIPES += [
    Recipe("gptq", 8, symmetric=False, act_order=True, zero_shift=0),
    Recipe("compressed-tensors", 8, -1, False),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_a_whole_checkpoint_is_found_and_decoded(recipe: Recipe, tmp_path: Path) -> None:
    """The tensors are found, agree with their config, and decode to what the library decodes."""
    community = write_community(tmp_path / "model", recipe)
    quantization = read(recipe.config())
    module = {"gptq": gptq, "awq": awq, "compressed-tensors": compressed_tensors}[recipe.method]
    with open_checkpoint(community.folder) as checkpoint:
        assert len(community.decoded) == 2 * 7
        for name, expected in community.decoded.items():
            encoding = module.detect(name, expected.shape, checkpoint.tensors)
            encoding = quantization.adopt(encoding, name, expected.shape[1])
            parts = [checkpoint.read(part.name) for part in encoding.parts(name, expected.shape)]
            np.testing.assert_array_equal(encoding.decode(parts, FLOAT16, where=name), expected)
            grouped, _ = encoding.regroup(parts, name, encoding.grouped())
            assert (grouped.offsets, grouped.order) == (
                recipe.method == "awq" or not recipe.symmetric,
                recipe.act_order,
            )
