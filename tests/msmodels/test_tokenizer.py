"""The tokenizer encodes, decodes and renders chats as Transformers' fast tokenizers do."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend

from msport.errors import CheckpointError, UsageError
from msport.msmodels.text_stream import TextStream
from msport.msmodels.tokenizer import Tokenizer, _add_tokens, load_tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It doesn't mind, and the dog isn't bothered.",
    "敏捷的棕色狐狸跳过了懒狗。模型移植要逐层核对。",
    "def main(arguments: list[str]) -> int:\n    return sum(len(text) for text in arguments)\n",
]
TEXTS = [
    "The lazy dog .",
    "  leading and trailing  ",
    "敏捷的狐狸，龘靐齉",
    "smile 😀👩‍👩‍👧‍👦🏳️‍🌈 done",
    "def f(x):\n\treturn {'a': [x, None]}  # 注释\n",
    "<|start|>user<|message|>hi<|end|>",
    "naïve café, Ελληνικά, עברית, ไทย",
    "",
]
SPECIAL = ["<|start|>", "<|message|>", "<|end|>", "<|bos|>"]
CHAT_TEMPLATE = """{%- for message in messages %}
    {%- if message.role not in ["system", "user", "assistant"] %}
        {{- raise_exception("unknown role " + message.role) }}
    {%- endif %}
    {%- if message.role == "skipped" %}{% continue %}{% endif %}
    {%- generation %}{{- "<|start|>" + message.role + "<|message|>" + message.content + "<|end|>" }}{% endgeneration %}
{%- endfor %}
{{ {"text": "你好 <b>", "n": 1} | tojson }} {{ strftime_now("%Y") | length }} {{ eos_token }}
{%- if add_generation_prompt %}
    {{- "<|start|>assistant" }}
{%- endif %}
"""


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
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]


@pytest.fixture(scope="module", params=WRITERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("tokenizer"))


def _load(folder: Path) -> Tokenizer:
    tokenizer = load_tokenizer(folder)
    assert tokenizer is not None
    return tokenizer


@functools.cache
def _tokenizer(kind: str) -> Tokenizer:
    with TemporaryDirectory() as folder:
        return _load(WRITERS[kind](Path(folder)))


def _reference(folder: Path) -> Any:
    """Transformers' tokenizer, made from tokenizer.json as it is.

    The LlamaTokenizer of Transformers 5 puts a normalizer and a pre-tokenizer of its own in the place of the file's.
    """
    transformers = pytest.importorskip("transformers")
    kind = transformers.PreTrainedTokenizerFast if _is_transformers_5() else transformers.AutoTokenizer
    return kind.from_pretrained(folder)


def _is_transformers_5() -> bool:
    return version("transformers").startswith("5.")


def _streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = tokenizer.stream()
    return [*(stream.add(token) for token in ids), stream.finish()]


@pytest.mark.reference
def test_ids_and_text_are_those_of_transformers(folder: Path) -> None:
    theirs, ours = _reference(folder), _load(folder)
    for text in TEXTS:
        ids = theirs(text)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special_tokens=skip) == expected
    assert ours.special_ids == {theirs.convert_tokens_to_ids(token) for token in theirs.all_special_tokens} | (
        {theirs.convert_tokens_to_ids(token) for token in SPECIAL} if "<|end|>" in theirs.get_vocab() else set()
    )


@pytest.mark.reference
@pytest.mark.parametrize("flags", [{"add_bos_token": False}, {"add_eos_token": True}, {}])
def test_bos_and_eos_follow_the_flags_of_tokenizer_config_where_transformers_does(
    flags: dict[str, bool], tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    if flags and _is_transformers_5():
        pytest.skip("Transformers 5 leaves bos and eos to tokenizer.json")
    folder = write_byte_fallback(tmp_path, **flags)
    assert _load(folder).encode("the dog") == _reference(folder).encode("the dog")


@pytest.mark.reference
def test_tokens_that_only_tokenizer_config_names_are_added_as_transformers_adds_them(tmp_path: Path) -> None:
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {"340": token | {"content": "<|extra|>"}, "341": token | {"content": "<tool>", "special": False}}
    folder = write_byte_level(tmp_path, added_tokens_decoder=added, pad_token="<|pad|>")
    theirs, ours = _reference(folder), _load(folder)
    text = "a<|extra|>b<tool>c<|pad|>"
    assert ours.encode(text) == theirs.encode(text)
    assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text), skip_special_tokens=True)


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["string", "named", "file"])
def test_a_chat_renders_as_transformers_renders_it(kind: str, tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHAT_TEMPLATE}]
    in_config = {"string": CHAT_TEMPLATE, "named": named, "file": "not this one"}[kind]
    folder = write_byte_level(tmp_path, chat_template=in_config)
    if kind == "file":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    theirs, ours = _reference(folder), _load(folder)
    assert ours.has_chat_template
    for generation in (True, False):
        expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=generation)
        assert ours.apply_chat_template(MESSAGES, add_generation_prompt=generation) == expected
        ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=generation, return_dict=False)
        assert ours.encode(expected, add_special_tokens=False) == ids


def test_a_stream_joins_to_the_whole_text_and_never_holds_half_a_character(folder: Path) -> None:
    tokenizer = _load(folder)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        pieces = _streamed(tokenizer, ids)
        assert "".join(pieces) == tokenizer.decode(ids)
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@settings(max_examples=150)
@given(st.text(max_size=30))
def test_any_text_streams_to_itself(text: str) -> None:
    for tokenizer in map(_tokenizer, WRITERS):
        ids = tokenizer.encode(text)
        assert "".join(_streamed(tokenizer, ids)) == tokenizer.decode(ids)


@settings(max_examples=150)
@given(st.lists(st.integers(0, 339), max_size=80))
def test_any_byte_level_tokens_stream_to_what_they_decode_to(ids: list[int]) -> None:
    tokenizer = _tokenizer("byte level")
    assert "".join(_streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_character_left_incomplete_ends_as_one_replacement() -> None:
    tokenizer = _tokenizer("byte level")
    ids = tokenizer.encode("龘")
    assert len(ids) == 3
    assert _streamed(tokenizer, ids[:2]) == ["", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_stream_decodes_a_bounded_window_however_long_the_text() -> None:
    tokenizer = _tokenizer("byte level")
    windows: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        windows.append(len(ids))
        return tokenizer.decode(ids)

    stream = TextStream(decode)
    stray_byte = tokenizer.encode("龘")[1]
    ids = [*tokenizer.encode("the dog 敏捷的 " * 50), *[stray_byte] * 300, *tokenizer.encode("end")]
    assert "".join(map(stream.add, ids)) + stream.finish() == tokenizer.decode(ids)
    assert max(windows) <= 33
    assert len(windows) <= 2 * len(ids) + 1


def test_tokens_that_only_tokenizer_config_names_are_added_in_one_call(tmp_path: Path) -> None:
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(340 + index): token | {"content": f"<|extra {index}|>"} for index in range(1000)}
    calls: list[int] = []

    class Counting:
        """A backend, which builds its search for added tokens anew at each call: a million calls would not end."""

        backend = Backend.from_file(str(write_byte_level(tmp_path) / "tokenizer.json"))

        def add_tokens(self, tokens: Sequence[AddedToken]) -> None:
            calls.append(len(tokens))
            self.backend.add_tokens(tokens)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.backend, name)

    backend = Counting()
    _add_tokens(backend, {"added_tokens_decoder": added}, {})
    assert calls == [1000]
    assert backend.encode("<|extra 7|>").ids == [347]


def test_a_folder_without_a_tokenizer_has_none(tmp_path: Path) -> None:
    assert load_tokenizer(tmp_path) is None


def test_truncation_and_padding_left_in_the_file_do_not_apply(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    whole = _load(folder).encode("the dog")
    document = json.loads((folder / "tokenizer.json").read_text())
    document["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    assert _load(folder).encode("the dog") == whole


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer.json", "not json"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"5": {"content": 5}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
        ("tokenizer_config.json", '{"additional_special_tokens": "text"}'),
        ("tokenizer_config.json", '{"additional_special_tokens": [null]}'),
        ("tokenizer_config.json", '{"eos_token": {"content": 5}}'),
        ("tokenizer_config.json", '{"eos_token": [1]}'),
        ("tokenizer_config.json", '{"chat_template": [{}]}'),
        ("tokenizer_config.json", '{"chat_template": 5}'),
        ("tokenizer_config.json", "[" * 100_000),
        ("tokenizer_config.json", '{"model_max_length": ' + "1" * 4000 + "}"),
        ("chat_template.jinja", b"\xc4\xe3"),
    ],
)
def test_a_broken_file_is_named(name: str, content: str | bytes, tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=rf"{name}: .*; take it from") as caught:
        load_tokenizer(folder)
    assert len(str(caught.value)) < len(str(tmp_path)) + 400


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_a_pipe_is_refused_not_waited_for(name: str, tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match=rf"{name}: is a named pipe"):
        load_tokenizer(folder)


def test_a_tokenizer_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    with open(folder / "tokenizer.json", "ab") as file:
        file.truncate(200_000_000)  # takes no place on the disk
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: .*larger than 100000000 bytes"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {}}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "gone", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [],
                "special_tokens": {},
            }
        },
    ],
    ids=["an exception", "a panic"],
)
def test_a_tokenizer_that_fails_on_a_text_is_named(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    document = json.loads((folder / "tokenizer.json").read_text()) | changes
    (folder / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the tokenizer fails .*; take it from"):
        _load(folder).encode("dog")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (os.fsdecode("你好".encode("gbk")), r"not UTF-8: it holds the byte 0xC4 \(character 1\); convert it"),
        ("ok \ud83d", r"half a surrogate pair, U\+D83D \(character 4\)"),
    ],
)
def test_a_text_that_is_not_unicode_is_refused_with_the_remedy(text: str, reason: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=reason):
        _load(folder).encode(text)


def test_a_template_that_is_no_jinja_is_named_when_it_is_used(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / "chat_template.jinja").write_text("{% if %}", encoding="utf-8")
    tokenizer = _load(folder)
    assert tokenizer.decode(tokenizer.encode("the dog")) == "the dog"
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: .* not valid jinja .* use --raw"):
        tokenizer.apply_chat_template(MESSAGES)


def test_a_template_that_refuses_the_messages_says_why(tmp_path: Path) -> None:
    tokenizer = _load(write_byte_level(tmp_path, chat_template=CHAT_TEMPLATE))
    with pytest.raises(UsageError, match="unknown role judge"):
        tokenizer.apply_chat_template([{"role": "judge", "content": ""}])


def test_a_template_that_refuses_at_length_and_in_colours_is_quoted_in_part(tmp_path: Path) -> None:
    tokenizer = _load(write_byte_level(tmp_path, chat_template="{{ raise_exception('\x1b[31mno\n' * 1000) }}"))
    with pytest.raises(UsageError, match="no") as caught:
        tokenizer.apply_chat_template(MESSAGES)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "did not end within 1 s"),
        ("{{ 10 ** (10 ** 10) }}", "did not end within 1 s"),
        ("{{ 'x' * 10 ** 10 }}", "needs more than 256 MB"),
        ("{{ 'x' * 17000000 }}", "17000000 characters"),
        ("x" * 5_000_000, "5000000 characters"),
        ("{% if true %}" * 30_000 + "{% endif %}" * 30_000, "nested too deeply"),
        ("{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}", "nested too deeply"),
        ("{{ " + "not " * 100_000 + "1 }}", "nested too deeply"),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "too many statically nested blocks"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    ],
    ids=["loops", "power", "repetition", "long prompt", "5 MB", "ifs", "parentheses", "nots", "fors", "macro"],
)
def test_a_template_that_takes_too_much_is_one_clear_line(template: str, reason: str, tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    seconds = 1 if "did not end" in reason else 60
    with pytest.raises((CheckpointError, UsageError), match=rf"chat_template\.jinja: .*{reason}.*; .*use --raw"):
        _load(folder).apply_chat_template(MESSAGES, seconds=seconds, memory=256 << 20)


def test_a_message_may_be_longer_than_an_argument_of_a_process(tmp_path: Path) -> None:
    tokenizer = _load(write_byte_level(tmp_path, chat_template="{{ messages[0].content }}"))
    text = "你好 \U0001f600 " * 100_000
    assert tokenizer.apply_chat_template([{"role": "user", "content": text}]) == text


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    tokenizer = _load(write_byte_level(tmp_path, chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"))
    with pytest.raises(UsageError, match="unsafe"):
        tokenizer.apply_chat_template(MESSAGES)


def test_a_chat_without_a_template_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tokenizer = _load(write_byte_level(tmp_path))
    assert not tokenizer.has_chat_template
    with pytest.raises(UsageError, match="--raw"):
        tokenizer.apply_chat_template(MESSAGES)
