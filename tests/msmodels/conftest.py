"""Fixtures: a tiny gpt-oss and its conversion; for parity tests, a pair of models per variant of a module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from msport.convert import convert_checkpoint
from msport.msmodels import LanguageModel, load_model
from msport.sample import write_sample

if TYPE_CHECKING:
    from msmodels.parity import Pair, Variant


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gpt-oss of two layers, a window of 8, MXFP4 experts. Shared: copy it before changing it."""
    overrides = {"num_hidden_layers": 2, "sliding_window": 8}
    return write_sample("gpt-oss", tmp_path_factory.mktemp("hub") / "tiny", overrides=overrides)


@pytest.fixture(scope="session")
def folder(hub_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hub_folder` converted to float32, which loads without a copy. Shared: copy it before changing it."""
    output = tmp_path_factory.mktemp("converted") / "tiny-ms"
    convert_checkpoint(hub_folder, output, dtype="float32")
    return output


@pytest.fixture(scope="session")
def model(folder: Path) -> LanguageModel:
    """Two sequences of up to 60 tokens in chunks of 16."""
    return load_model(folder, max_length=60, batch_size=2, prefill_chunk=16)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per variant, and per fault; of the faults only the first is quick."""
    if "variant" in metafunc.fixturenames:
        rows = [_param(name, variant, variant.slow) for name, variant in metafunc.module.VARIANTS.items()]
        metafunc.parametrize("variant", rows, scope="module")
    if "fault" in metafunc.fixturenames:
        rows = [_param(name, fault, number > 0) for number, (name, fault) in enumerate(metafunc.module.FAULTS.items())]
        metafunc.parametrize("fault", rows)


def _param(name: str, value: object, slow: bool) -> Any:
    return pytest.param(value, id=name, marks=[pytest.mark.slow] if slow else [])


@pytest.fixture(scope="module")
def variants(request: pytest.FixtureRequest) -> Mapping[str, Variant]:
    """All variants of the module."""
    found: Mapping[str, Variant] = request.module.VARIANTS
    return found


@pytest.fixture(scope="module")
def pair(variant: Variant, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Both models of one variant; its graphs are compiled once for all tests of the module."""
    pytest.importorskip("transformers")
    from msmodels.parity import make_pair

    return make_pair(tmp_path_factory.mktemp("pair"), variant)
