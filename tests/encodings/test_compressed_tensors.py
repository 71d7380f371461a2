"""compressed-tensors: packing and decoding as in the library, and what the tensors of a layer must be.

The library is no dependency of the tests, so what it makes of fixed layers is written down as hashes. Where it is
installed (``pip install --no-deps compressed-tensors loguru`` and ``pydantic``), the hashes are compared with it:
version 0.20.0 for all but act-order, 0.12.2 for act-order, which later versions do not have.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import numpy as np
import pytest
from community import Array, Quantized, Recipe, pack_compressed, quantize

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT8, INT32, INT64, DType, cast
from msport.encodings.compressed_tensors import CompressedTensors, detect
from msport.errors import CheckpointError, UnsupportedError

WEIGHT = "model.layers.0.mlp.down_proj.weight"
SHAPE = (24, 128)

# Hashes of the weight that the library decodes, with scales in float16 and in bfloat16.
LIBRARY = {
    Recipe("compressed-tensors", bits, group, symmetric, act_order): hashes
    for bits, group, symmetric, act_order, *hashes in [
        (4, 32, True, False, "df494975cc512696", "a6f2475e62f7d5a8"),
        (4, 32, False, False, "3178df9384e83efd", "25a0bb0c41b27a5d"),
        (4, -1, True, False, "03489521871f75a4", "71adde8b71917c37"),
        (4, -1, False, False, "6def6d690959f1e8", "4fbf15e616c31eab"),
        (8, 64, True, False, "274fe89c292d0723", "1e91aef11851f5a7"),
        (8, 64, False, False, "41f8d06485649dca", "a7e403212c9a0a33"),
        (8, -1, True, False, "aab008122ee533a8", "50ff7ae9d5a0dce3"),
        (8, -1, False, False, "9cabab22848cdd11", "4cc3153052e8b895"),
        (4, 32, True, True, "b318ff11cddfa9dd", "179763d5e656db42"),
        (8, 64, True, True, "a199d8430441179f", "65b00a623e451f7e"),
    ]
}


def name(recipe: Recipe) -> str:
    kind = "symmetric" if recipe.symmetric else "asymmetric"
    return f"int{recipe.bits}-{recipe.group}-{kind}" + ("-act-order" if recipe.act_order else "")


def layer_of(recipe: Recipe) -> Quantized:
    """The codes of a layer, from integers alone: no rounding of a machine can change it."""
    generator = np.random.default_rng(recipe.bits + recipe.group)
    weight = generator.integers(-1000, 1500, SHAPE) / 1024
    return quantize(weight, recipe, generator)


def encoding_and_parts(recipe: Recipe, scale_dtype: DType = FLOAT16) -> tuple[CompressedTensors, list[Array]]:
    tensors = pack_compressed(layer_of(recipe), recipe.symmetric, recipe.act_order)
    tensors["weight_scale"] = cast(tensors["weight_scale"], FLOAT16, scale_dtype)
    group = SHAPE[1] if recipe.group == -1 else recipe.group
    zeros = None if recipe.symmetric else INT32
    return CompressedTensors(recipe.bits, group, scale_dtype, zeros, recipe.act_order), list(tensors.values())


def hash_of(bits: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(bits).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("recipe", LIBRARY, ids=name)
def test_every_bit_is_the_librarys(recipe: Recipe) -> None:
    for dtype, expected in zip((FLOAT16, BFLOAT16), LIBRARY[recipe], strict=True):
        encoding, parts = encoding_and_parts(recipe, dtype)
        assert hash_of(encoding.decode(parts, dtype)) == expected


@pytest.mark.parametrize("recipe", LIBRARY, ids=name)
def test_the_hashes_are_those_of_the_library(recipe: Recipe) -> None:
    pytest.importorskip("compressed_tensors")
    import torch

    for dtype, expected in zip((torch.float16, torch.bfloat16), LIBRARY[recipe], strict=True):
        decoded = (decode_act_order if recipe.act_order else decompress)(recipe, dtype)
        assert decoded.dtype == dtype
        assert hash_of(decoded.view(torch.int16).numpy()) == expected


def decompress(recipe: Recipe, dtype: Any) -> Any:
    """The weight that the library makes of the stored tensors."""
    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    compressor = BaseCompressor.get_value_from_registry("pack-quantized")
    if not inspect.ismethod(compressor.decompress):
        pytest.skip("this version of compressed-tensors does not unpack zero points")
    tensors = {
        part: torch.from_numpy(values) for part, values in pack_compressed(layer_of(recipe), recipe.symmetric).items()
    }
    tensors["weight_scale"] = tensors["weight_scale"].to(dtype)
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments(recipe))
    return compressor.decompress(tensors, scheme)["weight"]


def decode_act_order(recipe: Recipe, dtype: Any) -> Any:
    """The weight that the library makes of the codes."""
    import torch
    from compressed_tensors.quantization.lifecycle.forward import dequantize

    if "g_idx" not in inspect.signature(dequantize).parameters:
        pytest.skip("this version of compressed-tensors has no act-order")
    layer = layer_of(recipe)
    codes = torch.from_numpy((layer.codes - (1 << recipe.bits - 1)).astype(np.int8))
    index = torch.from_numpy(layer.group_of_input)
    return dequantize(codes, torch.from_numpy(layer.scales).to(dtype), None, arguments(recipe), g_idx=index)


def arguments(recipe: Recipe) -> Any:
    from compressed_tensors.quantization import QuantizationArgs

    strategy = {"strategy": "channel"} if recipe.group == -1 else {"strategy": "group", "group_size": recipe.group}
    return QuantizationArgs(num_bits=recipe.bits, symmetric=recipe.symmetric, **strategy)


@pytest.mark.parametrize("recipe", [recipe for recipe in LIBRARY if not recipe.act_order], ids=name)
def test_the_packing_of_the_tests_is_that_of_the_library(recipe: Recipe) -> None:
    library = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    import torch

    layer = layer_of(recipe)
    packed = pack_compressed(layer, symmetric=False)
    half = 1 << recipe.bits - 1
    codes, zeros = (torch.from_numpy((numbers - half).astype(np.int8)) for numbers in (layer.codes, layer.zeros))
    np.testing.assert_array_equal(packed["weight_packed"], library.pack_to_int32(codes, recipe.bits).numpy())
    expected = library.pack_to_int32(zeros, recipe.bits, packed_dim=0).numpy()
    np.testing.assert_array_equal(packed["weight_zero_point"], expected)


def test_zero_points_that_are_not_packed_give_the_same_weight() -> None:
    recipe = Recipe("compressed-tensors", 4, 32, symmetric=False)
    encoding, parts = encoding_and_parts(recipe)
    unpacked = list(pack_compressed(layer_of(recipe), symmetric=False, unpacked_zeros=True).values())
    decoded = CompressedTensors(4, 32, FLOAT16, INT8).decode(unpacked, FLOAT16)
    np.testing.assert_array_equal(decoded, encoding.decode(parts, FLOAT16))
    unpacked[3] = np.full_like(unpacked[3], 8)
    with pytest.raises(CheckpointError, match=r"^w: the zero point of group \(0, 0\) is 16, outside of 0 to 15"):
        CompressedTensors(4, 32, FLOAT16, INT8).decode(unpacked, FLOAT16, where="w")


def test_a_table_of_minus_ones_means_that_the_groups_are_contiguous() -> None:
    recipe = Recipe("compressed-tensors", 4, 32)
    encoding, parts = encoding_and_parts(recipe)
    unset = [*parts, np.full(SHAPE[1], -1, np.int32)]
    ordered = CompressedTensors(4, 32, FLOAT16, act_order=True)
    np.testing.assert_array_equal(ordered.decode(unset, FLOAT16), encoding.decode(parts, FLOAT16))
    assert not ordered.regroup(unset)[0].order


def test_a_range_of_outputs_may_begin_within_a_word_of_zero_points() -> None:
    encoding, parts = encoding_and_parts(Recipe("compressed-tensors", 4, 32, symmetric=False))
    whole = encoding.decode(parts, FLOAT32)
    for begin, end in ((0, 3), (5, 6), (11, 24)):
        cut = [
            part if (rows := encoding.rows(k, begin, end)) is None else part[slice(*rows)]
            for k, part in enumerate(parts)
        ]
        np.testing.assert_array_equal(encoding.decode(cut, FLOAT32, first_row=begin), whole[begin:end])


def test_a_shape_that_is_not_that_of_the_codes_is_refused() -> None:
    encoding, parts = encoding_and_parts(Recipe("compressed-tensors", 4, 32))
    parts[2] = np.array([24, 120])
    with pytest.raises(CheckpointError, match=r"^w: weight_shape says \[24, 120\], weight_packed holds \[24, 128\]"):
        encoding.decode(parts, FLOAT32, where="w")


def infos(**tensors: tuple[DType, tuple[int, ...]]) -> dict[str, TensorInfo]:
    names = {f"model.layers.0.mlp.down_proj.{name}": content for name, content in tensors.items()}
    return {name: TensorInfo(name, dtype, shape, ()) for name, (dtype, shape) in names.items()}


def test_bits_groups_zero_points_and_act_order_are_found_in_the_tensors() -> None:
    packed, scales = {"weight_packed": (INT32, (24, 16))}, {"weight_scale": (BFLOAT16, (24, 4))}
    assert detect(WEIGHT, SHAPE, infos(**packed, **scales)) == CompressedTensors(4, 32)
    found = detect(WEIGHT, SHAPE, infos(weight_packed=(INT32, (24, 32)), weight_scale=(FLOAT16, (24, 1))))
    assert found == CompressedTensors(8, 128, FLOAT16)
    for dtype, shape in ((INT32, (3, 4)), (INT8, (24, 4))):
        found = detect(WEIGHT, SHAPE, infos(**packed, **scales, weight_zero_point=(dtype, shape)))
        assert found == CompressedTensors(4, 32, zero_dtype=dtype)
        assert found.parts(WEIGHT, SHAPE)[3].shape == shape
    found = detect(WEIGHT, SHAPE, infos(**packed, **scales, weight_g_idx=(INT64, (128,))))
    assert found == CompressedTensors(4, 32, act_order=True)
    assert detect(WEIGHT, SHAPE, infos(weight=(BFLOAT16, SHAPE))) is None


def test_other_bits_and_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"proj.weight_packed' holds codes of 3 bits; msport reads 4 and 8"):
        detect(WEIGHT, SHAPE, infos(weight_packed=(INT32, (24, 12))))
    with pytest.raises(CheckpointError, match=r"proj.weight_scale' has 3 groups, which do not divide the 128 inputs"):
        detect(WEIGHT, SHAPE, infos(weight_packed=(INT32, (24, 16)), weight_scale=(BFLOAT16, (24, 3))))
