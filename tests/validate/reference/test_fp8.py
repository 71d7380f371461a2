"""The reference of a model in block-scaled FP8, which Transformers does not compute exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from convert.hub_folder import change_config, change_tensors, read_tensors
from convert.test_fp8 import QUANTIZATION, SIZES, quantize

from msport.checkpoint import open_checkpoint
from msport.convert import convert_checkpoint
from msport.sample import write_sample

pytest.importorskip("transformers")
pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sample("qwen3", tmp_path_factory.mktemp("samples") / "quantized", overrides=SIZES)
    change_tensors(folder, quantize)
    change_config(folder, quantization_config=QUANTIZATION)
    return folder


def test_the_streamed_reference_has_the_weights_that_the_converter_makes(quantized: Path, tmp_path: Path) -> None:
    from msport.validate.reference.filling import Parameters

    convert_checkpoint(quantized, tmp_path / "out", dtype="float32")
    with open_checkpoint(quantized) as checkpoint:
        parameters = Parameters(checkpoint, "float32")
        for name, (_, values) in read_tensors(tmp_path / "out").items():
            np.testing.assert_array_equal(parameters.read(name).numpy(), values, err_msg=name)


def test_the_whole_reference_has_the_parameters_of_the_streamed_one(quantized: Path) -> None:
    from msport.validate.reference.filling import Parameters
    from msport.validate.reference.loading import load_reference

    model = load_reference(quantized).model
    with open_checkpoint(quantized) as checkpoint:
        parameters = Parameters(checkpoint, "float32")
        for name, values in model.named_parameters():
            np.testing.assert_array_equal(values.numpy(), parameters.read(name).numpy(), err_msg=name)
