"""A chat is rendered as Transformers renders it; a template that is broken, or takes too much, is one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from msmodels.tokenizer_folders import load, reference, write_byte_level
from msport.errors import CheckpointError, UsageError

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


MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好"}]


@pytest.mark.reference
@pytest.mark.parametrize("kind", ["string", "named", "file"])
def test_a_chat_renders_as_transformers_renders_it(kind: str, tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHAT_TEMPLATE}]
    in_config = {"string": CHAT_TEMPLATE, "named": named, "file": "not this one"}[kind]
    folder = write_byte_level(tmp_path, chat_template=in_config)
    if kind == "file":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    theirs, ours = reference(folder), load(folder)
    assert ours.has_chat_template
    for generation in (True, False):
        expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=generation)
        assert ours.apply_chat_template(MESSAGES, add_generation_prompt=generation) == expected
        ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=generation, return_dict=False)
        assert ours.encode(expected, add_special_tokens=False) == ids


def test_an_invalid_template_is_named_when_it_is_used(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / "chat_template.jinja").write_text("{% if %}", encoding="utf-8")
    tokenizer = load(folder)
    assert tokenizer.decode(tokenizer.encode("the dog")) == "the dog"
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja: .* not valid jinja .* use --raw"):
        tokenizer.apply_chat_template(MESSAGES)


def test_a_template_that_refuses_the_messages_says_why(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level(tmp_path, chat_template=CHAT_TEMPLATE))
    with pytest.raises(UsageError, match="unknown role judge"):
        tokenizer.apply_chat_template([{"role": "judge", "content": ""}])


def test_a_template_that_refuses_at_length_and_in_colours_is_quoted_in_part(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level(tmp_path, chat_template="{{ raise_exception('\x1b[31mno\n' * 1000) }}"))
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
        load(folder).apply_chat_template(MESSAGES, seconds=seconds, memory=256 << 20)


def test_a_message_may_be_longer_than_an_argument_of_a_process(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level(tmp_path, chat_template="{{ messages[0].content }}"))
    text = "你好 \U0001f600 " * 100_000
    assert tokenizer.apply_chat_template([{"role": "user", "content": text}]) == text


def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level(tmp_path, chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"))
    with pytest.raises(UsageError, match="unsafe"):
        tokenizer.apply_chat_template(MESSAGES)


def test_a_chat_without_a_template_is_refused_with_the_remedy(tmp_path: Path) -> None:
    tokenizer = load(write_byte_level(tmp_path))
    assert not tokenizer.has_chat_template
    with pytest.raises(UsageError, match="--raw"):
        tokenizer.apply_chat_template(MESSAGES)
