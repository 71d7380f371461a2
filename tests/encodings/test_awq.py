"""AWQ: the order of codes in a word as in AutoAWQ, and what the tensors of a layer must be."""

from __future__ import annotations

import numpy as np
import pytest
from community import Array, Recipe, pack_awq, quantize

from msport.checkpoint import TensorInfo
from msport.checkpoint.dtypes import FLOAT16, INT32
from msport.encodings.awq import Awq, detect
from msport.errors import CheckpointError

WEIGHT = "model.layers.0.mlp.down_proj.weight"
SHAPE = (64, 256)


def dequantize_gemm_as_torch_does(tensors: dict[str, Array], group: int) -> Array:
    """The weight ``[outputs, inputs]``, as ``dequantize_gemm`` of AutoAWQ's ``packing_utils.py`` makes it."""
    import torch

    qweight, qzeros, scales = (torch.from_numpy(tensors[name]) for name in ("qweight", "qzeros", "scales"))
    shifts = torch.arange(0, 32, 4)
    reverse = torch.arange(scales.shape[1]).view(-1, 8)[:, [0, 4, 1, 5, 2, 6, 3, 7]].reshape(-1)

    def unpack(words: torch.Tensor) -> torch.Tensor:
        numbers = torch.bitwise_right_shift(words[:, :, None], shifts[None, None, :]).to(torch.int8)
        return torch.bitwise_and(numbers.view(len(words), -1)[:, reverse], 15)

    zeros = unpack(qzeros).repeat_interleave(group, dim=0)
    values: Array = ((unpack(qweight) - zeros) * scales.repeat_interleave(group, dim=0)).T.contiguous().numpy()
    return values


@pytest.mark.parametrize("group", [32, 64, 256])
def test_random_words_decode_as_in_torch(group: int) -> None:
    generator = np.random.default_rng(group)
    outputs, inputs = SHAPE
    qweight, qzeros = (
        generator.integers(-(2**31), 2**31, (rows, outputs // 8)).astype(np.int32) for rows in (inputs, inputs // group)
    )
    scales = generator.normal(0, 0.01, (inputs // group, outputs)).astype(np.float16)
    tensors = {"qweight": qweight, "qzeros": qzeros, "scales": scales}
    decoded = Awq(group).decode(list(tensors.values()), FLOAT16)
    expected = dequantize_gemm_as_torch_does(tensors, group)
    np.testing.assert_array_equal(decoded.view(np.uint16), expected.view(np.uint16))


def test_what_is_packed_as_autoawq_does_is_what_torch_unpacks() -> None:
    generator = np.random.default_rng(0)
    layer = quantize(generator.standard_normal(SHAPE), Recipe("awq", symmetric=False), generator)
    np.testing.assert_array_equal(dequantize_gemm_as_torch_does(pack_awq(layer), 64), layer.decoded())


def infos(*scales: int, qweight: tuple[int, ...] = (256, 8)) -> dict[str, TensorInfo]:
    layer = WEIGHT.removesuffix("weight")
    return {
        f"{layer}qweight": TensorInfo(f"{layer}qweight", INT32, qweight, ()),
        f"{layer}scales": TensorInfo(f"{layer}scales", FLOAT16, scales, ()),
    }


def test_the_group_is_found_in_the_shapes() -> None:
    assert detect(WEIGHT, SHAPE, infos(2, 64)) == Awq(128)
    assert detect(WEIGHT, SHAPE, infos(2, 64, qweight=(32, 64))) is None  # GPTQ
    assert detect(WEIGHT, SHAPE, {}) is None


def test_scales_of_another_layout_and_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(
        CheckpointError, match=r"proj.scales' is \[256, 16\], not \[groups, 256\] as in AWQ's layout gemm"
    ):
        detect(WEIGHT, (256, 256), infos(256, 16, qweight=(256, 32)))
    with pytest.raises(CheckpointError, match="has 3 groups, which do not divide the 256 inputs"):
        detect(WEIGHT, SHAPE, infos(3, 64))
