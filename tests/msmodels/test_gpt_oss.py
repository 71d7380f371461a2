"""gpt-oss in graph mode against Transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mindspore.ops import full_like

from msmodels.parity import (
    FULL_LIMIT,
    Fault,
    ParityTests,
    Variant,
    change_rope,
    change_windows,
    check,
    convert_random,
    layers,
    load_reference,
    reference_logits,
    worst,
)
from msport import convert_checkpoint, load_model
from msport.msmodels import LanguageModel
from msport.sample import write_sample
from msport.validate.compare.metrics import measure

pytestmark = pytest.mark.reference

YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
VARIANTS = {
    "20b": Variant(
        {
            "model_type": "gpt_oss",
            "hidden_size": 96,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "head_dim": 20,
            "sliding_window": 24,
            "num_local_experts": 8,
            "num_experts_per_tok": 4,
            "max_position_embeddings": 131072,
            "rope_theta": 150000.0,
            "rope_scaling": YARN,
        },
        full=1.7e-6,
        cached=1.9e-6,
        tokens=300,
    )
}
# The largest error measured in a prompt of 4400 tokens.
LONG = 1.3e-6
# The largest measured with experts that stay packed.
PACKED = 2.0e-6


def drop_the_sinks(model: LanguageModel) -> None:
    sinks = layers(model)[0].self_attn.sinks
    sinks.set_data(full_like(sinks, -1e4))


def drop_the_clamp(model: LanguageModel) -> None:
    layers(model)[0].mlp.experts.activation.limit = 1e9


FAULTS = {
    "clamp-dropped": Fault("20b", drop_the_clamp),
    "sinks-dropped": Fault("20b", drop_the_sinks),
    "window-one-too-long": Fault("20b", lambda model: change_windows(model, 25, None)),
    "yarn-bounds-rounded": Fault("20b", lambda model: change_rope(model, truncate=True)),
}


class TestGptOss(ParityTests):
    pass


@pytest.mark.parametrize("operators", ["cpu", pytest.param("portable", marks=pytest.mark.slow)])
def test_experts_that_stay_packed_give_the_logits_of_transformers(
    operators: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt in chunks, which goes through all experts, and tokens one by one, which decode only their own."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    hub = write_sample("gpt-oss", tmp_path / "hub", overrides={"num_hidden_layers": 2})
    convert_checkpoint(hub, tmp_path / "ms", dtype="mxfp4")
    reference = load_reference(hub)
    for parameter in reference.parameters():  # Transformers decodes experts to bfloat16
        parameter.data = parameter.data.to(torch.float32)
    ids = np.random.default_rng(0).integers(0, 1000, 60)
    expected = reference_logits(reference, ids)
    monkeypatch.setenv("MSPORT_OPS", operators)
    model = load_model(tmp_path / "ms", "mxfp4", max_length=64, prefill_chunk=16)
    check(f"packed, {operators}, full", worst(expected, model.logits(ids[None])[0]), PACKED, FULL_LIMIT)
    logits = [model.prefill([ids[:50]])] + [model.decode([token]) for token in ids[50:]]
    cached = worst(expected[49:], np.concatenate(logits))
    check(f"packed, {operators}, cached", cached, PACKED, FULL_LIMIT)


@pytest.mark.slow
def test_logits_are_those_of_transformers_beyond_position_4096(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    # At head_dim 64 torch's pow gives two frequencies another last bit than rounding once does: 2e-5 at this distance.
    config = {**VARIANTS["20b"].config, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 32}
    hub, converted = convert_random(tmp_path, config, "float32")
    model = load_model(converted, "float32", max_length=4400)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, 4400)
    expected = reference_logits(load_reference(hub), ids)
    errors = measure(expected, model.logits(ids[None])[0]).relative_l2
    check("up to position 4096", float(errors[:4096].max()), LONG, FULL_LIMIT)
    check("beyond", float(errors[4096:].max()), LONG, FULL_LIMIT)
