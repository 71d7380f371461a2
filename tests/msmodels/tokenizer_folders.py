"""Small tokenizers as the Hub's folders hold them, read by msport and by Transformers."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from msport.msmodels.tokenizer import Tokenizer, load_tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It doesn't mind, and the dog isn't bothered.",
    "敏捷的棕色狐狸跳过了懒狗。模型移植要逐层核对。",
    "def main(arguments: list[str]) -> int:\n    return sum(len(text) for text in arguments)\n",
]
SPECIAL = ["<|start|>", "<|message|>", "<|end|>", "<|bos|>"]


def write_byte_level(folder: Path, **names: Any) -> Path:
    """As gpt-oss, Qwen and Llama 3 have it; no bos."""
    tokenizer = Backend(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _write(folder, tokenizer, {"eos_token": "<|end|>", "tokenizer_class": "PreTrainedTokenizerFast"} | names)


def write_byte_fallback(folder: Path, **names: Any) -> Path:
    """As Llama 2, Mistral and Gemma have it: spaces as U+2581, unknown characters as byte tokens, a leading bos."""
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary += [*sorted(set("".join(CORPUS)) - {" "}), "▁", "▁the", "▁d"]
    ids = {token: position for position, token in enumerate(dict.fromkeys(vocabulary))}
    merges = [("▁", "d")]
    tokenizer = Backend(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    defaults = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": True}
    return _write(folder, tokenizer, defaults | {"tokenizer_class": "LlamaTokenizer"} | names)


def _write(folder: Path, tokenizer: Backend, names: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    return folder


WRITERS = {"byte level": write_byte_level, "byte fallback": write_byte_fallback}


def load(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    return tokenizer


def reference(folder: Path) -> Any:
    """Transformers' tokenizer, made from tokenizer.json as it is.

    The LlamaTokenizer of Transformers 5 puts a normalizer and a pre-tokenizer of its own in the place of the file's.
    """
    transformers = pytest.importorskip("transformers")
    kind = transformers.PreTrainedTokenizerFast if is_transformers_5() else transformers.AutoTokenizer
    return kind.from_pretrained(folder)


def is_transformers_5() -> bool:
    return version("transformers").startswith("5.")
