"""GPTQ, AWQ and compressed-tensors decode to the library's own bits, and regrouping them loses nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from community import Array, Quantized, Recipe, pack, quantize
from hypothesis import given, settings
from hypothesis import strategies as st

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT32, INT64, DType, cast
from msport.encodings import awq, compressed_tensors, gptq
from msport.encodings.grouped import Grouped
from msport.encodings.packed_words import permute
from msport.errors import CheckpointError, UnsupportedError

WEIGHT = "model.layers.0.self_attn.q_proj.weight"
MODULES = {"gptq": gptq, "awq": awq, "compressed-tensors": compressed_tensors}
DTYPES = {np.dtype(np.float16): FLOAT16, np.dtype(np.int32): INT32, np.dtype(np.int64): INT64}

gptq_recipes = st.builds(
    Recipe,
    method=st.just("gptq"),
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, 64, -1]),
    symmetric=st.booleans(),
    act_order=st.booleans(),
    zero_shift=st.sampled_from([0, 1]),
)
awq_recipes = st.builds(Recipe, method=st.just("awq"), group=st.sampled_from([32, 64, -1]), symmetric=st.booleans())
compressed_recipes = st.builds(
    Recipe,
    method=st.just("compressed-tensors"),
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([32, 64, -1]),
    symmetric=st.booleans(),
    act_order=st.booleans(),
    zero_shift=st.just(0),
)
recipes = st.one_of(gptq_recipes, awq_recipes, compressed_recipes)


def make(recipe: Recipe, outputs: int = 24, inputs: int = 192, seed: int = 0) -> tuple[Quantized, Any, list[Array]]:
    """A random layer, the encoding that is found for its tensors, and the parts."""
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((outputs, inputs)).astype(np.float32) + 0.3
    layer = quantize(weight, recipe, generator)
    tensors = {f"{WEIGHT.removesuffix('weight')}{name}": values for name, values in pack(layer, recipe).items()}
    infos = {name: TensorInfo(name, DTYPES[values.dtype], values.shape, ()) for name, values in tensors.items()}
    encoding = MODULES[recipe.method].detect(WEIGHT, (outputs, inputs), infos)
    if recipe.method == "gptq":
        encoding = replace(encoding, zero_shift=recipe.zero_shift)
    parts = encoding.parts(WEIGHT, (outputs, inputs))
    for part in parts:
        assert infos[part.name].shape == part.shape
        assert infos[part.name].dtype in part.dtypes
    assert len(parts) == len(tensors)
    return layer, encoding, [tensors[part.name] for part in parts]


def rounded(values: Array, dtype: DType) -> Array:
    """float32 `values`, each the exact product, in storage form of `dtype`."""
    return cast(np.ascontiguousarray(values), FLOAT32, dtype)


def exact(layer: Quantized) -> Array:
    """The products, which float32 holds exactly: 9 bits times the 11 of float16."""
    levels = layer.codes - layer.zeros[:, layer.group_of_input]
    return (levels * layer.scales[:, layer.group_of_input].astype(np.float64)).astype(np.float32)


@given(recipe=recipes, outputs=st.sampled_from([8, 32, 72]), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_every_bit_is_the_librarys_in_float16_and_the_exact_product_elsewhere(
    recipe: Recipe, outputs: int, seed: int
) -> None:
    layer, encoding, parts = make(recipe, outputs, seed=seed)
    decoded = encoding.decode(parts, FLOAT16)
    np.testing.assert_array_equal(decoded.view(np.uint16), layer.decoded().view(np.uint16))
    for dtype in (BFLOAT16, FLOAT32):
        np.testing.assert_array_equal(encoding.decode(parts, dtype), rounded(exact(layer), dtype))


@given(recipe=recipes, outputs=st.sampled_from([8, 32]), seed=st.integers(0, 99))
@settings(max_examples=60)
def test_regrouped_weights_decode_to_the_same_bits(recipe: Recipe, outputs: int, seed: int) -> None:
    layer, encoding, parts = make(recipe, outputs, seed=seed)
    shape = layer.codes.shape
    for target in (None, encoding.grouped()):
        grouped, regrouped = encoding.regroup(parts, target=target)
        assert target is None or grouped == target
        for part, array in zip(grouped.parts(WEIGHT, shape), regrouped, strict=True):
            assert (array.shape, array.dtype) == (part.shape, part.dtype.storage)
            assert array.flags.c_contiguous
        for dtype in (FLOAT16, BFLOAT16, FLOAT32):
            np.testing.assert_array_equal(grouped.decode(regrouped, dtype), encoding.decode(parts, dtype))
    np.testing.assert_array_equal(regrouped[1].view(np.uint16), layer.scales.view(np.uint16))


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_offsets_and_an_order_are_stored_only_if_they_say_something(method: str) -> None:
    for symmetric in (True, False):
        for act_order in (False,) if method == "awq" else (False, True):
            _layer, encoding, parts = make(Recipe(method, symmetric=symmetric, act_order=act_order))
            grouped, _ = encoding.regroup(parts)
            assert grouped == Grouped(4, 64, FLOAT16, offsets=not symmetric, order=act_order)


def test_in_act_order_the_groups_are_contiguous_and_the_order_names_the_input_of_each_column() -> None:
    layer, encoding, parts = make(Recipe("gptq", act_order=True))
    _grouped, (codes, _scales, order) = encoding.regroup(parts)
    np.testing.assert_array_equal(layer.group_of_input[order], np.arange(192) // 64)
    nibbles = np.stack([codes & 15, codes >> 4], -1).reshape(24, 192)
    np.testing.assert_array_equal(nibbles ^ 8, layer.codes[:, order])


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_any_range_of_outputs_decodes_as_in_the_whole_matrix_of_several_tiles(method: str) -> None:
    _layer, encoding, parts = make(Recipe(method, symmetric=False, act_order=method != "awq"), outputs=264, inputs=8192)
    whole = encoding.decode(parts, FLOAT16)
    for begin, end in ((256, 264), (3, 5), (125, 262)):
        cut = [
            part if (rows := encoding.rows(number, begin, end)) is None else part[slice(*rows)]
            for number, part in enumerate(parts)
        ]
        out = np.empty((end - begin, 8192), np.float16)
        encoding.decode(cut, FLOAT16, out, first_row=begin)
        np.testing.assert_array_equal(out, whole[begin:end])


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_the_output_may_have_any_strides(method: str) -> None:
    _layer, encoding, parts = make(Recipe(method, act_order=method != "awq"))
    transposed = np.zeros((192, 24), np.float32)
    assert encoding.decode(parts, FLOAT32, transposed.T).base is transposed
    np.testing.assert_array_equal(transposed.T, encoding.decode(parts, FLOAT32))


def test_permuting_codes_permutes_their_columns() -> None:
    levels = np.arange(-8, 8, dtype=np.int8)[None]
    order = np.roll(np.arange(16), 3)
    packed = (levels[:, 0::2].view(np.uint8) & 15) | levels[:, 1::2].view(np.uint8) << 4
    moved = permute(packed, order, 4)
    np.testing.assert_array_equal(
        np.stack([moved & 15, moved >> 4], -1).reshape(-1), levels.view(np.uint8)[0, order] & 15
    )
    np.testing.assert_array_equal(permute(levels, order, 8), levels[:, order])


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
@pytest.mark.parametrize("scale", [0.0, np.nan, np.inf])
def test_a_scale_that_is_zero_or_not_finite_is_refused(method: str, scale: float) -> None:
    _layer, encoding, parts = make(Recipe(method))
    place = 1 if method == "compressed-tensors" else 2
    parts[place] = parts[place].copy()
    parts[place][1, 2] = scale
    for call in (encoding.regroup, lambda parts, where: encoding.decode(parts, BFLOAT16, where=where)):
        with pytest.raises(CheckpointError, match=r"^f.safetensors: w: the scale of group .* is (0|nan|inf)"):
            call(parts, where="f.safetensors: w")


@pytest.mark.parametrize("method", ["gptq", "compressed-tensors"])
@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([3] + [0] * 63, "names group 3, but there are groups 0 to 2"),
        ([-2] + [0] * 63, "names group -2, but there are groups 0 to 2"),
        ([1] + [0] * 63, "gives group 0 63 inputs instead of 64"),
    ],
)
def test_a_table_of_act_order_that_is_no_permutation_is_refused(method: str, groups: list[int], words: str) -> None:
    _layer, encoding, parts = make(Recipe(method, act_order=True))
    parts[-1] = np.array(groups + [1] * 64 + [2] * 64, np.int32)
    with pytest.raises(CheckpointError, match=f"^w: g_idx {words}.*download the model again"):
        encoding.decode(parts, FLOAT32, where="w")


def test_groups_that_no_kernel_multiplies_are_decoded_but_not_kept_packed() -> None:
    layer, encoding, parts = make(Recipe("gptq", group=16))
    np.testing.assert_array_equal(encoding.decode(parts, FLOAT16), layer.decoded())
    with pytest.raises(UnsupportedError, match=r"^w: groups of 16 cannot stay packed.*--dtype bfloat16"):
        encoding.regroup(parts, "w")


@pytest.mark.parametrize("change", ["symmetric", "act_order"])
def test_zero_points_or_an_order_that_the_config_denied_are_not_dropped(change: str) -> None:
    _layer, encoding, parts = make(Recipe("gptq", symmetric=change != "symmetric", act_order=change == "act_order"))
    target = replace(encoding, symmetric=True, act_order=False).grouped()
    with pytest.raises(CheckpointError, match=r"^w: the weights .* but quantization_config of config.json says"):
        encoding.regroup(parts, "w", target)


@pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors"])
def test_a_value_beyond_float16_is_refused(method: str) -> None:
    _layer, encoding, parts = make(Recipe(method, symmetric=False))
    place = 1 if method == "compressed-tensors" else 2
    parts[place] = np.full_like(parts[place], 60000)
    with pytest.raises(OverflowError, match="float16"):
        encoding.decode(parts, FLOAT16)
    assert np.isfinite(encoding.decode(parts, FLOAT32)).all()
