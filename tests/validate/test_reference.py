"""The reference is Transformers in float32, complete, exact in its weights, and the same in chunks as at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.checkpoint import open_checkpoint
from msport.errors import CheckpointError, MissingDependencyError
from msport.sample import write_sample
from msport.validate import reference
from msport.validate.metrics import relative_l2
from msport.validate.reference import Reference, load_reference, reference_versions
from msport.validate.weights import decode_mxfp4

IDS = [int(token) for token in np.random.default_rng(0).integers(0, 1000, 100)]


@pytest.fixture(scope="module")
def loaded(sample: Path) -> Reference:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return load_reference(sample)


def _parameters(loaded: Reference) -> dict[str, Any]:
    return dict(loaded._model.named_parameters())


@pytest.mark.reference
def test_everything_is_float32_after_loading_mxfp4(loaded: Reference) -> None:
    import torch

    assert {parameter.dtype for parameter in _parameters(loaded).values()} == {torch.float32}
    assert {buffer.dtype for buffer in loaded._model.buffers()} == {torch.float32}


@pytest.mark.reference
def test_decoded_experts_are_exact(loaded: Reference, sample: Path) -> None:
    name = "model.layers.1.mlp.experts.gate_up_proj"
    with open_checkpoint(sample) as checkpoint:
        blocks, scales = checkpoint.read(f"{name}_blocks"), checkpoint.read(f"{name}_scales")
    for expert, theirs in enumerate(_parameters(loaded)[name].detach().numpy()):
        np.testing.assert_array_equal(theirs, decode_mxfp4(blocks[expert], scales[expert]).T)


@pytest.mark.reference
def test_the_rotary_frequencies_are_not_rounded(loaded: Reference) -> None:
    import torch

    (frequencies,) = [buffer for name, buffer in loaded._model.named_buffers() if name.endswith(".inv_freq")]
    assert (frequencies != frequencies.to(torch.bfloat16).float()).any()


@pytest.mark.reference
def test_a_bfloat16_upload_gives_the_same_parameters_as_stored(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = write_sample("gpt-oss", tmp_path / "hub", overrides={"num_hidden_layers": 2}, dtype="bfloat16")
    parameters = _parameters(load_reference(folder))
    name = "model.layers.0.mlp.experts.down_proj"
    with open_checkpoint(folder) as checkpoint:
        stored = (checkpoint.read(name).astype(np.uint32) << 16).view(np.float32)
    np.testing.assert_array_equal(parameters[name].detach().numpy(), stored)


@pytest.mark.reference
def test_chunks_with_a_cache_agree_with_one_pass(loaded: Reference) -> None:
    (whole,) = loaded.run(IDS)
    pieces = list(loaded.run(IDS, chunk=33))
    assert [piece.start for piece in pieces] == [0, 33, 66, 99]
    error = relative_l2(whole.logits, np.concatenate([piece.logits for piece in pieces])).max()
    drift = relative_l2(whole.hidden_states, np.concatenate([p.hidden_states for p in pieces], axis=1)).max()
    print(f"in chunks: logits {error:.1e}, residual stream {drift:.1e}")
    assert max(error, drift) < 1e-5


@pytest.mark.reference
def test_long_prompts_run_in_chunks_of_bounded_scores(loaded: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = loaded._model.config.num_attention_heads
    monkeypatch.setattr(reference, "_SCORE_BYTES", 40 * heads * len(IDS) * 4 * 5)
    assert [len(chunk.logits) for chunk in loaded.run(IDS)] == [40, 40, 20]


@pytest.mark.reference
def test_the_residual_stream_is_that_before_the_final_norm(loaded: Reference) -> None:
    import torch

    (chunk,) = loaded.run(IDS)
    model = loaded._model
    assert chunk.hidden_states.shape == (model.config.num_hidden_layers + 1, len(IDS), model.config.hidden_size)
    with torch.inference_mode():
        embedded = model.model.embed_tokens(torch.tensor(IDS)).numpy()
        logits = model.lm_head(model.model.norm(torch.tensor(chunk.hidden_states[-1]))).numpy()
    np.testing.assert_array_equal(chunk.hidden_states[0], embedded)
    np.testing.assert_allclose(logits, chunk.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.reference
def test_a_reference_that_lacks_a_tensor_is_refused_instead_of_left_to_chance(sample: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    folder = Path(shutil.copytree(sample, tmp_path / "hub"))
    index = folder / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    (shard,) = {document["weight_map"]["model.norm.weight"]}
    document["weight_map"] = {name: file for name, file in document["weight_map"].items() if file != shard}
    index.write_text(json.dumps(document))
    (folder / shard).unlink()
    with pytest.raises(CheckpointError, match="missing keys"):
        load_reference(folder)


@pytest.mark.reference
def test_pickled_weights_are_never_loaded(sample: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    shutil.copy(sample / "config.json", tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot load the reference"):
        load_reference(tmp_path)


@pytest.mark.reference
def test_the_versions_that_computed_it_are_known() -> None:
    transformers = pytest.importorskip("transformers")
    assert reference_versions()["transformers"] == transformers.__version__


def test_without_torch_the_remedy_is_named(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'msport\[reference\]'"):
        load_reference(sample)
