"""GPTQ: bit order and zero points as in AutoGPTQ, and what the tensors of a layer must be."""

from __future__ import annotations

import numpy as np
import pytest
from community import Array, Recipe, pack_gptq, quantize

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32, INT32, DType, cast
from msport.encodings.gptq import Gptq, detect
from msport.errors import CheckpointError, UnsupportedError

WEIGHT = "model.layers.0.mlp.down_proj.weight"
SHAPE = (64, 256)


def dequantize_as_torch_does(tensors: dict[str, Array], bits: int, zero_shift: int) -> Array:
    """The weight ``[outputs, inputs]``, by shifts and masks of torch, as in ``QuantLinear.forward`` of AutoGPTQ's
    ``qlinear_cuda_old.py`` and ``_dequantize_from_codes`` of GPTQModel.
    """
    import torch

    qweight, qzeros, scales, index = (
        torch.from_numpy(tensors[name]) for name in ("qweight", "qzeros", "scales", "g_idx")
    )
    shifts = torch.arange(0, 32, bits, dtype=torch.int32)
    mask = 2**bits - 1
    zeros = torch.bitwise_right_shift(qzeros[:, :, None], shifts[None, None, :]).to(torch.int16)
    zeros = torch.bitwise_and(torch.bitwise_and(zeros, mask) + zero_shift, mask).reshape(scales.shape)
    weight = torch.bitwise_right_shift(qweight[:, None, :], shifts[None, :, None]).to(torch.int16)
    weight = torch.bitwise_and(weight, mask).reshape(-1, weight.shape[2])
    values: Array = (scales[index.long()] * (weight - zeros[index.long()])).T.contiguous().numpy()
    return values


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("zero_shift", [0, 1])
@pytest.mark.parametrize("bits", [4, 8])
def test_random_words_decode_as_in_torch(bits: int, zero_shift: int, act_order: bool) -> None:
    generator = np.random.default_rng(bits + zero_shift)
    outputs, inputs = SHAPE
    group = 64
    # No stored zero point is the highest, to which 1 cannot be added.
    unset = -1 - (0x11111111 if bits == 4 else 0x01010101)
    index = np.arange(inputs, dtype=np.int32) // group
    words = [
        generator.integers(-(2**31), 2**31, shape).astype(np.int32)
        for shape in ((inputs * bits // 32, outputs), (inputs // group, outputs * bits // 32))
    ]
    tensors = {
        "qweight": words[0],
        "qzeros": words[1] & np.int32(unset),
        "scales": generator.normal(0, 0.01, (inputs // group, outputs)).astype(np.float16),
        "g_idx": generator.permutation(index) if act_order else index,
    }
    decoded = Gptq(bits, group, zero_shift=zero_shift).decode(list(tensors.values()), FLOAT16)
    expected = dequantize_as_torch_does(tensors, bits, zero_shift)
    np.testing.assert_array_equal(decoded.view(np.uint16), expected.view(np.uint16))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_shift", [0, 1])
def test_what_is_packed_as_autogptq_does_is_what_torch_unpacks(bits: int, zero_shift: int) -> None:
    generator = np.random.default_rng(0)
    recipe = Recipe("gptq", bits, 64, symmetric=False, act_order=True, zero_shift=zero_shift)
    layer = quantize(generator.standard_normal(SHAPE), recipe, generator)
    unpacked = dequantize_as_torch_does(pack_gptq(layer, zero_shift), bits, zero_shift)
    np.testing.assert_array_equal(unpacked, layer.decoded())


def test_scales_in_bfloat16_give_exact_products_rounded_once() -> None:
    generator = np.random.default_rng(3)
    layer = quantize(generator.standard_normal(SHAPE), Recipe("gptq", symmetric=False), generator)
    tensors = pack_gptq(layer)
    tensors["scales"] = cast(tensors["scales"], FLOAT16, BFLOAT16)
    scales = cast(tensors["scales"], BFLOAT16, FLOAT32).T[:, layer.group_of_input]
    expected = (layer.codes - layer.zeros[:, layer.group_of_input]) * scales.astype(np.float64)
    decoded = Gptq(4, 64, BFLOAT16).decode(list(tensors.values()), BFLOAT16)
    np.testing.assert_array_equal(decoded, cast(expected.astype(np.float32), FLOAT32, BFLOAT16))


@pytest.mark.parametrize(("bits", "value"), [(4, 16), (8, 256)])
def test_a_zero_point_above_the_codes_is_refused(bits: int, value: int) -> None:
    """Libraries read the highest stored zero point plus 1 in three ways."""
    generator = np.random.default_rng(0)
    tensors = pack_gptq(quantize(generator.standard_normal(SHAPE), Recipe("gptq", bits), generator))
    tensors["qzeros"][2, 1] |= 2**bits - 1
    parts = list(tensors.values())
    with pytest.raises(CheckpointError, match=rf"^w: the zero point of group \({32 // bits}, 2\) is {value}, outside"):
        Gptq(bits, 64).decode(parts, FLOAT32, where="w")
    Gptq(bits, 64, zero_shift=0).decode(parts, FLOAT32)


def infos(**tensors: tuple[DType, tuple[int, ...]]) -> dict[str, TensorInfo]:
    names = {f"model.layers.0.mlp.down_proj.{name}": content for name, content in tensors.items()}
    return {name: TensorInfo(name, dtype, shape, ()) for name, (dtype, shape) in names.items()}


def test_bits_group_and_act_order_are_found_in_the_shapes() -> None:
    found = detect(WEIGHT, SHAPE, infos(qweight=(INT32, (32, 64)), scales=(FLOAT16, (2, 64)), g_idx=(INT32, (256,))))
    assert found == Gptq(4, 128)
    found = detect(WEIGHT, SHAPE, infos(qweight=(INT32, (64, 64)), scales=(BFLOAT16, (1, 64))))
    assert found == Gptq(8, 256, BFLOAT16, index=False, act_order=False)


def test_other_tensors_are_not_taken_for_gptq() -> None:
    assert detect(WEIGHT, SHAPE, infos(weight=(FLOAT16, SHAPE))) is None
    assert detect(WEIGHT, SHAPE, infos(qweight=(INT32, (256, 8)))) is None  # AWQ
    assert detect("model.norm", SHAPE, infos(qweight=(INT32, (32, 64)))) is None
    assert detect(WEIGHT, (4, *SHAPE), infos(qweight=(INT32, (32, 64)))) is None


def test_three_bits_and_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"proj.qweight' holds GPTQ codes of 3 bits"):
        detect(WEIGHT, SHAPE, infos(qweight=(INT32, (24, 64)), scales=(FLOAT16, (2, 64))))
    with pytest.raises(CheckpointError, match=r"proj.scales' has 3 groups, which do not divide the 256 inputs"):
        detect(WEIGHT, SHAPE, infos(qweight=(INT32, (32, 64)), scales=(FLOAT16, (3, 64))))
    with pytest.raises(CheckpointError, match="zero points of 60 outputs with 4 bits do not fill"):
        detect(WEIGHT, (60, 256), infos(qweight=(INT32, (32, 60)), scales=(FLOAT16, (2, 60))))
