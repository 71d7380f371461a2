from __future__ import annotations

import json
from pathlib import Path

import jinja2
import pytest

from msport.sample import write_sample
from msport.sample.chat import CHATML, HARMONY, ChatFormat
from msport.sample.tokenizers import MAX_TOKENS, tokenizer_files

tokenizers = pytest.importorskip("tokenizers")

TEXTS = (
    "Hello, world! It's 2025: don't panic.",
    "  two  spaces,\n\n\ttabs and a very_unlikely-IDENTIFIER42",
    "你好，世界。",
    "emoji 🙂 and a lone byte \x00",
    "",
)


@pytest.mark.parametrize("vocab_size", [282, 500, 1024, 201_088])
@pytest.mark.parametrize("chat", [HARMONY, CHATML], ids=["harmony", "chatml"])
def test_text_survives_encoding_and_every_id_is_within_the_vocabulary(chat: ChatFormat, vocab_size: int) -> None:
    files, ids = tokenizer_files(chat, vocab_size)
    tokenizer = tokenizers.Tokenizer.from_str(files["tokenizer.json"])
    for text in TEXTS:
        encoded = tokenizer.encode(text).ids
        assert tokenizer.decode(encoded) == text
        assert all(0 <= token < min(vocab_size, MAX_TOKENS) - chat.reserved for token in encoded)
    start = min(vocab_size, MAX_TOKENS) - chat.reserved
    assert list(ids.values()) == list(range(start, start + len(ids)))
    assert tokenizer.get_vocab_size() == start + len(ids) <= vocab_size
    for token, number in ids.items():
        assert tokenizer.encode(token).ids == [number]
        assert tokenizer.id_to_token(number) == token


def test_words_become_fewer_tokens_than_bytes() -> None:
    tokenizer = tokenizers.Tokenizer.from_str(tokenizer_files(HARMONY, 1024)[0]["tokenizer.json"])
    text = "The capital of France is Paris, and the river was quiet."
    assert len(tokenizer.encode(text).ids) < len(text) / 2


def test_special_ids_end_as_those_of_gpt_oss_do() -> None:
    ids = tokenizer_files(HARMONY, 1024)[1]
    published = {
        "<|startoftext|>": 199998,
        "<|endoftext|>": 199999,
        "<|reserved_200000|>": 200000,
        "<|return|>": 200002,
        "<|constrain|>": 200003,
        "<|channel|>": 200005,
        "<|start|>": 200006,
        "<|end|>": 200007,
        "<|message|>": 200008,
        "<|call|>": 200012,
        "<|endofprompt|>": 200018,
    }
    assert {token: ids[token] for token in published} == {token: number - 199000 for token, number in published.items()}


def test_configs_and_tokenizer_agree(tmp_path: Path) -> None:
    folder = write_sample("gpt-oss", tmp_path / "sample", overrides={"num_hidden_layers": 1, "vocab_size": 640})
    config, generation, named = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("config.json", "generation_config.json", "tokenizer_config.json")
    )
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert config["eos_token_id"] == tokenizer.token_to_id(named["eos_token"]) == 618
    assert config["pad_token_id"] == generation["pad_token_id"] == tokenizer.token_to_id(named["pad_token"])
    assert generation["bos_token_id"] == tokenizer.token_to_id(named["bos_token"])
    stops = [tokenizer.id_to_token(number) for number in generation["eos_token_id"]]
    assert stops == ["<|return|>", "<|endoftext|>", "<|call|>"]
    assert max(int(number) for number in named["added_tokens_decoder"]) < 640


def test_the_chat_template_speaks_harmony() -> None:
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(HARMONY.template)
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye"},
    ]
    text = template.render(messages=messages, add_generation_prompt=True)
    assert text.startswith("<|start|>system<|message|>")
    assert text.endswith(
        "<|end|><|start|>developer<|message|># Instructions\n\nBe brief.<|end|>"
        "<|start|>user<|message|>Hi<|end|>"
        "<|start|>assistant<|channel|>final<|message|>Hello.<|end|>"
        "<|start|>user<|message|>Bye<|end|><|start|>assistant"
    )
