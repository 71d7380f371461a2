"""A workload is exactly as long as it says, and one of nothing is refused."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from msport.architectures import ARCHITECTURES
from msport.bench.measure.typed_json import parse
from msport.bench.measure.workload import Workload, check_workload, make_prompts
from msport.errors import UsageError

FAMILY = ARCHITECTURES["GptOssForCausalLM"]
CONFIG = FAMILY.parse(FAMILY.sample_config(), Path("config.json"))


def test_prompts_are_as_many_and_as_long_as_asked_and_the_same_for_the_same_seed() -> None:
    workload = Workload(17, 1, batch=3)
    ids = make_prompts(workload, 50, seed=1)
    assert ids.shape == (3, 17)
    assert 0 <= ids.min() <= ids.max() < 50
    assert np.array_equal(ids, make_prompts(workload, 50, seed=1))
    assert not np.array_equal(ids, make_prompts(workload, 50, seed=2))


def test_the_ids_of_a_text_are_the_prompt_of_every_sequence() -> None:
    workload = Workload(3, 1, batch=2, name="english", ids=(5, 6, 7))
    assert make_prompts(workload, 50, seed=1).tolist() == [[5, 6, 7], [5, 6, 7]]
    assert parse(Workload, json.loads(json.dumps(asdict(workload)))) == workload
    assert workload.title.startswith("english: ")


@pytest.mark.parametrize("field", ["prompt_tokens", "new_tokens", "batch"])
def test_a_workload_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(UsageError, match=f"{field} must be at least 1, not 0"):
        check_workload(Workload(**{field: 0}), CONFIG)


def test_a_workload_may_fill_the_models_positions_and_no_more() -> None:
    positions = CONFIG.max_position_embeddings
    check_workload(Workload(positions - 1, 1), CONFIG)
    with pytest.raises(UsageError, match="exceed the model's max_position_embeddings"):
        check_workload(Workload(positions, 1), CONFIG)
