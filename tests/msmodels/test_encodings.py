"""A checkpoint in any encoding gives the logits of its decoded weights, and stays as it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from msmodels.encoded import encode_folder
from msport.checkpoint.dtypes import BFLOAT16, FLOAT16, FLOAT32
from msport.convert import convert_checkpoint
from msport.encodings import MXFP4, Encoding, Grouped, Plain
from msport.msmodels import LanguageModel, load_model
from msport.sample import write_sample

FAMILIES = ("llama", "qwen3-moe")
ENCODINGS = {
    "bfloat16": Plain(BFLOAT16),
    "float16": Plain(FLOAT16),
    "mxfp4": MXFP4,
    "int4": Grouped(4),
    "int4, offsets": Grouped(4, 64, FLOAT16, offsets=True),
    "int8": Grouped(8),
    "int8, offsets, order": Grouped(8, 32, FLOAT32, offsets=True, order=True),
}
# Sums in float32 in another order, through two layers.
TOLERANCE = 3e-6


@pytest.fixture(scope="module", params=FAMILIES)
def converted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A family in float32, whose sizes are multiples of 64."""
    folder = tmp_path_factory.mktemp(request.param)
    sizes = {"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 192}
    if request.param == "qwen3-moe":
        sizes["moe_intermediate_size"] = 64
    write_sample(request.param, folder / "hub", overrides=sizes)
    convert_checkpoint(folder / "hub", folder / "ms", dtype="float32")
    return folder / "ms"


def logits(model: LanguageModel) -> np.ndarray:
    """Of a prompt in chunks, and of tokens one by one."""
    ids = np.random.default_rng(0).integers(0, 1000, 40)
    steps = [model.prefill([ids[:30]]), *(model.decode([token]) for token in ids[30:])]
    return np.concatenate([model.logits(ids[None])[0], *steps])


@pytest.mark.parametrize(
    "encoding",
    [
        pytest.param(each, id=name, marks=[pytest.mark.slow] * (name != "int4, offsets"))
        for name, each in ENCODINGS.items()
    ],
)
@pytest.mark.parametrize("operators", ["cpu", pytest.param("portable", marks=pytest.mark.slow)])
def test_logits_are_those_of_the_decoded_weights(
    encoding: Encoding, operators: str, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, plain = encode_folder(converted, tmp_path, encoding)
    truth = logits(load_model(plain, max_length=48, prefill_chunk=16))
    monkeypatch.setenv("MSPORT_OPS", operators)
    model = load_model(packed, max_length=48, prefill_chunk=16)
    found = logits(model)
    error = np.linalg.norm(found - truth) / np.linalg.norm(truth)
    print(f"relative L2 error {error:.1e}, weights in {model.costs.storage}")
    assert error <= TOLERANCE
    if not isinstance(encoding, Plain):
        assert model.costs.weight_bytes < load_model(plain, max_length=48).costs.weight_bytes
