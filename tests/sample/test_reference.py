"""Transformers takes a sample for a checkpoint from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport.architectures import ARCHITECTURES, Architecture
from msport.checkpoint import open_checkpoint
from msport.encodings import mxfp4
from msport.sample import write_sample

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample("gpt-oss", tmp_path_factory.mktemp("samples") / "gpt-oss")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    return model.float().eval()  # Transformers 4.57.1 leaves experts that it unpacked in bfloat16


def test_every_packed_weight_is_what_msport_decodes(folder: Path, model: Any) -> None:
    name = "model.layers.3.mlp.experts.gate_up_proj"
    with open_checkpoint(folder) as checkpoint:
        packed = [checkpoint.read(f"{name}_{part}") for part in ("blocks", "scales")]
    expected = mxfp4.decode_transposed(*packed).astype(np.uint32) << 16
    np.testing.assert_array_equal(model.get_parameter(name).detach().numpy().view(np.uint32), expected)


def test_clamp_router_sinks_and_windows_matter_and_logits_stay_finite(model: Any) -> None:
    seen: dict[str, list[Any]] = {"clamped": [], "experts": [], "attended": []}

    def watch(module: Any, arguments: Any, options: Any, output: Any) -> None:
        inputs = arguments[0].reshape(-1, module.hidden_size)
        projected = torch.einsum("th,ehf->tef", inputs, module.gate_up_proj) + module.gate_up_proj_bias[None]
        seen["clamped"].append((projected[..., ::2] > 7).float().mean().item())
        indices = options["router_indices"] if options else arguments[1]  # Transformers 4, 5
        seen["experts"].append(indices.sort().values.unique(dim=0).shape[0])

    hooks = [layer.mlp.experts.register_forward_hook(watch, with_kwargs=True) for layer in model.model.layers]
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 1000, (1, 300)))
    with torch.no_grad():
        output = model(ids, output_attentions=True)
    for hook in hooks:
        hook.remove()
    sinks = [1 - attention.sum(-1).mean().item() for attention in output.attentions]
    print(f"clamped {seen['clamped']}, expert sets {seen['experts']}, mass on sinks {sinks}")
    assert all(0.02 < share < 0.3 for share in seen["clamped"])
    assert all(count > 20 for count in seen["experts"])
    assert all(0.01 < share < 0.5 for share in sinks)
    beyond_window = output.attentions[0][..., -1, : 300 - 24]
    assert beyond_window.abs().max() == 0 < output.attentions[1][..., -1, : 300 - 24].max()
    assert torch.isfinite(output.logits).all()
    assert 1 < output.logits.std() < 6


def test_generation_does_not_fall_into_a_loop(folder: Path, model: Any) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("Once upon a time", return_tensors="pt")
    generated = model.generate(**prompt, do_sample=False, max_new_tokens=24)[0].tolist()
    assert len(set(generated)) > 15


def test_the_tokenizer_and_its_chat_template_load(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode("Hello, 世界")) == "Hello, 世界"
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.eos_token_id) == ("<|return|>", "<|endoftext|>", 1002)
    messages = [{"role": "user", "content": "Hi"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(ids).endswith("<|start|>user<|message|>Hi<|end|><|start|>assistant")
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|start|>") == 1006


def test_an_unpacked_sample_loads_too(tmp_path: Path) -> None:
    folder = write_sample("gpt-oss", tmp_path / "sample", dtype="float32", overrides={"num_hidden_layers": 1})
    _, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report


@pytest.mark.parametrize("family", ARCHITECTURES.values(), ids=lambda family: family.model_type)
def test_every_family_loads_whole_and_its_logits_are_neither_flat_nor_certain(
    family: Architecture, tmp_path: Path
) -> None:
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        write_sample(family.title, tmp_path / "sample"), dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 900, (1, 100)))
    with torch.no_grad():
        logits = model.float()(ids).logits
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    print(f"{family.title}: logits of deviation {logits.std():.2f}, entropy {entropy:.2f}")
    assert 1 < entropy < 6
