"""Every fault that the family tests inject is located by `--level layers`: at its layer, and at its operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.validate.operations import (
    ATTENTION,
    ATTENTION_HALF,
    EMBEDDING,
    EXPERTS,
    FINAL_NORM,
    HEAD,
    MLP_NORM,
    ROTARY,
    ROUTER,
    SHARES,
)
from validate.tampering import change_config, change_tensor

pytestmark = pytest.mark.reference

# The fault of a family's FAULTS, and the station and the operation that must be named for it.
WHERE: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "gpt_oss": {
        "clamp-dropped": ("layers.0", EXPERTS),
        "sinks-dropped": ("layers.0", ATTENTION),
        "window-one-too-long": ("layers.0", ATTENTION),
        "yarn-bounds-rounded": ("layers.0", ROTARY),
    },
    "gemma2": {
        "cap-on-scores-dropped": ("layers.0", ATTENTION),
        "cap-on-logits-dropped": (HEAD, HEAD),
        "one-plus-weight-forgotten": ("layers.0", "mlp post-norm"),
        "query-scale-of-head-dim": ("layers.0", ATTENTION),
        "embeddings-not-scaled": (EMBEDDING, EMBEDDING),
        "windows-in-the-other-layers": ("layers.0", ATTENTION),
    },
    "llama": {
        "gate-and-up-swapped": ("layers.1", "gate_proj"),
        "llama3-frequencies-scaled-alike": ("layers.0", ROTARY),
        "output-bias-dropped": ("layers.0", "o_proj"),
    },
    "mistral": {
        "window-one-too-long": ("layers.0", ATTENTION),
        "window-one-too-short": ("layers.0", ATTENTION),
    },
    "mixtral": {
        "shares-not-renormalised": ("layers.0", SHARES),
        "gate-and-up-swapped": ("layers.1", EXPERTS),
    },
    "qwen2": {
        "window-in-every-layer": ("layers.0", ATTENTION),
        "yarn-bounds-not-rounded": ("layers.0", ROTARY),
        "yarn-without-its-factor-on-cos-and-sin": ("layers.0", ROTARY),
        "query-bias-dropped": ("layers.1", "q_proj"),
    },
    "qwen3": {
        "head-norms-dropped": ("layers.0", "q_norm"),
        "head-norms-swapped": ("layers.1", "q_norm"),
    },
    "qwen3_moe": {
        "shares-not-renormalised": ("layers.0", SHARES),
        "shares-renormalised": ("layers.1", SHARES),
    },
}
# One of each kind of family runs in every test run; the others are slow.
QUICK = {("gpt_oss", "clamp-dropped"), ("gemma2", "one-plus-weight-forgotten")}


def _cases() -> Iterator[Any]:
    for family, faults in WHERE.items():
        for fault in faults:
            marks = [] if (family, fault) in QUICK else [pytest.mark.slow]
            yield pytest.param(family, fault, id=f"{family}-{fault}", marks=marks)


@pytest.mark.parametrize("family", WHERE)
def test_no_fault_of_a_family_is_left_out(family: str) -> None:
    pytest.importorskip("transformers")
    assert set(import_module(f"msmodels.test_{family}").FAULTS) == set(WHERE[family])


@pytest.mark.parametrize(("family", "fault"), list(_cases()))
def test_a_fault_is_located_at_its_layer_and_operation(family: str, fault: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from msmodels.parity import convert_random

    from msport import load_model

    module = import_module(f"msmodels.test_{family}")
    variant = module.VARIANTS[module.FAULTS[fault].variant]
    hub, converted = convert_random(tmp_path, variant.config, "float32")
    model = load_model(converted, "float32", max_length=variant.max_length, prefill_chunk=16)
    module.FAULTS[fault].change(model)
    errors = locate(hub, tmp_path, model, variant.tokens)
    first = next(error for error in errors if error.first_operation)
    operation = first.first_operation
    print(f"{first.name} {operation.name} {operation.largest:.1e}: {operation.how}")
    assert (first.name, operation.name) == WHERE[family][fault]
    assert operation.how
    if operation.name in ATTENTION_HALF:
        assert first.feed_forward < 1e-4, "the other half is given the reference's stream, and is right"
    before = errors[: errors.index(first)]
    assert all(each.largest < 1e-4 for error in before for each in error.operations), "nothing before it departs"


def _perturb(values: np.ndarray) -> np.ndarray:
    values[3, 5] += 4 * values.std()
    return values


def _swap_gate_and_up(values: np.ndarray) -> np.ndarray:
    return np.stack([values[..., 1::2], values[..., ::2]], axis=-1).reshape(values.shape)


# Faults in a copy of a converted checkpoint, as in test_faults: the tensor and what is done to it, or a config's field.
TAMPERED: Mapping[str, tuple[str, Any, str, str]] = {
    "weight-perturbed": ("model.layers.1.self_attn.o_proj.weight", _perturb, "layers.1", "o_proj"),
    "sinks-dropped": ("model.layers.0.self_attn.sinks", lambda values: values * 0 - 1e4, "layers.0", ATTENTION),
    "gate-and-up-swapped": ("model.layers.1.mlp.experts.gate_up_proj", _swap_gate_and_up, "layers.1", EXPERTS),
    "router-bias-dropped": ("model.layers.1.mlp.router.bias", lambda values: values * 0, "layers.1", ROUTER),
    "norm-scaled": ("model.layers.1.post_attention_layernorm.weight", lambda values: values * 2, "layers.1", MLP_NORM),
    "final-norm-shifted": ("model.norm.weight", lambda values: values + 1, HEAD, FINAL_NORM),
    "epsilon-ten-times-as-large": ("rms_norm_eps", 1e-4, "layers.0", "input_layernorm"),
    "window-too-short": ("sliding_window", 23, "layers.0", ATTENTION),
    "window-too-long": ("sliding_window", 25, "layers.0", ATTENTION),
    "yarn-bounds-rounded": ("rope_scaling", {"truncate": True}, "layers.0", ROTARY),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", TAMPERED)
def test_a_fault_in_a_converted_folder_is_located(fault: str, sample: Path, converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from msport import load_model

    what, change, layer, operation = TAMPERED[fault]
    if what.startswith("model."):
        folder = change_tensor(converted, tmp_path / "ms", what, change)
    else:

        def put(config: dict[str, Any]) -> None:
            config[what] = {**config[what], **change} if isinstance(change, dict) else change

        folder = change_config(converted, tmp_path / "ms", put)
    errors = locate(sample, tmp_path, load_model(folder, max_length=100, prefill_chunk=32), 100)
    first = next(error for error in errors if error.first_operation)
    print(f"{first.name} {first.first_operation.name} {first.first_operation.largest:.1e}: {first.first_operation.how}")
    assert (first.name, first.first_operation.name) == (layer, operation)


@pytest.mark.parametrize(
    ("family", "variant"), [("gpt_oss", "20b"), pytest.param("qwen3_moe", "30b-a3b", marks=pytest.mark.slow)]
)
def test_without_a_fault_no_operation_departs_and_every_expert_is_the_reference_s(
    family: str, variant: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    from msmodels.parity import convert_random

    from msport import load_model

    chosen = import_module(f"msmodels.test_{family}").VARIANTS[variant]
    hub, converted = convert_random(tmp_path, chosen.config, "float32")
    model = load_model(converted, "float32", max_length=chosen.max_length, prefill_chunk=16)
    errors = locate(hub, tmp_path, model, chosen.tokens)
    largest = max(each.largest for error in errors for each in error.operations)
    print(f"largest error of an isolated operation: {largest:.1e}")
    assert largest < 2e-5
    assert not any(error.first_operation for error in errors)
    checks = [error.routing for error in errors if error.routing]
    assert len(checks) == model.config.num_hidden_layers
    assert all(check.wrong == 0 for check in checks)


def locate(hub: Path, scratch: Path, model: Any, tokens: int) -> list[Any]:
    """What is found at the stations of `model`, given the reference in `hub`."""
    from msport.validate.compare.layers import compare_head
    from msport.validate.measurement import Comparison, walk_layers
    from msport.validate.port.blocks import InMemory
    from msport.validate.prompts import Prompt
    from msport.validate.recording import Recording, RecordingWriter
    from msport.validate.reference.loading import load_reference
    from msport.validate.reference.run import record

    generator = np.random.default_rng(0)
    ids = tuple(int(token) for token in generator.integers(0, model.config.vocab_size, tokens))
    prompts = (Prompt("random", ids), Prompt("short", ids[:9], number=1))
    recorded = scratch / "recorded"
    recorded.mkdir()
    with RecordingWriter(recorded, prompts, model.config.vocab_size) as writer:
        record(load_reference(hub), prompts, writer, every_operation=True)
    layers = model.config.num_hidden_layers
    with Recording(recorded) as recording:
        blocks = InMemory(model.graphs.network, model.graphs.cache, model.config.hidden_size)
        walk = walk_layers(blocks, Comparison(recording, prompts, layers, operation=1e-4))
        drift = [np.zeros(1) for _ in prompts]
        with blocks.head() as head:
            chunks = [(prompt, head(recording.hidden_states(prompt.number, layers))) for prompt in prompts]
            last = compare_head(layers + 1, chunks, recording, drift, 1e-4)
    return [*walk.stations, last]
