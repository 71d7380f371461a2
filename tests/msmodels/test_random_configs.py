"""Any config that Transformers accepts is computed as Transformers computes it, or refused with a reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msmodels.parity import (
    CACHED_LIMIT,
    FULL_LIMIT,
    Variant,
    cached_error,
    full_error,
    load_reference,
    make_pair,
    reference_logits,
    save_random,
)
from msmodels.random_configs import draw_config
from msport.architectures import ARCHITECTURES
from msport.errors import ConfigError, UnsupportedError

pytestmark = pytest.mark.reference

SEEDS = range(35)
TOKENS = 64


def refusal(config: dict[str, Any]) -> str:
    """Why msport refuses `config`; empty if it does not."""
    family = next(family for family in ARCHITECTURES.values() if family.model_type == config["model_type"])
    try:
        family.parse(config, Path("config.json"))
    except (ConfigError, UnsupportedError) as error:
        return str(error)
    return ""


def test_most_of_the_configs_that_are_drawn_are_supported_but_not_all() -> None:
    refused = [bool(refusal(draw_config(seed))) for seed in SEEDS]
    assert len(refused) / 10 < sum(refused) < len(refused) / 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_config_matches_or_is_refused_by_the_name_of_a_field(seed: int, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    config = draw_config(seed)
    print(config)
    reason = refusal(config)
    if reason:
        assert reason.startswith("config.json: '")
        assert reason.split("'")[1].split(".")[0] in config
        return
    if not transformers_accepts(tmp_path / "trial", config):
        pytest.skip("not a config that Transformers can compute")
    pair = make_pair(tmp_path, Variant(config, FULL_LIMIT, CACHED_LIMIT, TOKENS))
    full, cached = full_error(pair, TOKENS), cached_error(pair, TOKENS)
    print(f"relative L2 error {full:.1e}, cached {cached:.1e}")
    assert full <= FULL_LIMIT
    assert cached <= CACHED_LIMIT


def transformers_accepts(folder: Path, config: dict[str, Any]) -> bool:
    """Whether Transformers makes a model of it that computes finite logits."""
    try:
        save_random(folder, copy.deepcopy(config), "float32")
        logits = reference_logits(load_reference(folder), np.arange(TOKENS) % config["vocab_size"])
    except Exception as error:
        print(repr(error))
        return False
    return bool(np.isfinite(logits).all())
