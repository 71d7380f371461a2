"""The conversation format of each family: special tokens, which of them end a generation, and the chat template."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """`special_tokens` get the first of the last `reserved` ids. `eos` ends a turn, `stops` end a generation."""

    special_tokens: tuple[str, ...]
    reserved: int
    bos: str | None
    eos: str
    pad: str
    stops: tuple[str, ...]
    template: str


# The ids end in the same digits as gpt-oss's own: 199998 becomes 998 in a vocabulary of 1024, 200012 becomes 1012.
_HARMONY_TOKENS = {
    0: "<|startoftext|>",
    1: "<|endoftext|>",
    4: "<|return|>",
    5: "<|constrain|>",
    7: "<|channel|>",
    8: "<|start|>",
    9: "<|end|>",
    10: "<|message|>",
    14: "<|call|>",
    20: "<|endofprompt|>",
}
_HARMONY_TEMPLATE = """\
{{- "<|start|>system<|message|>You are a sample model with random weights.\\n\\nReasoning: " }}
{{- reasoning_effort or "medium" }}
{{- "\\n\\n# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>" }}
{%- for message in messages %}
    {%- if message.role in ["system", "developer"] %}
        {{- "<|start|>developer<|message|># Instructions\\n\\n" + message.content + "<|end|>" }}
    {%- elif message.role == "user" %}
        {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- elif message.role == "assistant" %}
        {{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}
    {%- else %}
        {{- raise_exception("no role " + message.role) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start|>assistant" }}
{%- endif %}
"""
HARMONY = ChatFormat(
    special_tokens=tuple(_HARMONY_TOKENS.get(offset, f"<|reserved_{200000 - 2 + offset}|>") for offset in range(21)),
    reserved=26,
    bos="<|startoftext|>",
    eos="<|return|>",
    pad="<|endoftext|>",
    stops=("<|return|>", "<|endoftext|>", "<|call|>"),
    template=_HARMONY_TEMPLATE,
)

_CHATML_TEMPLATE = """\
{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
{%- endif %}
"""
CHATML = ChatFormat(
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    reserved=3,
    bos=None,
    eos="<|im_end|>",
    pad="<|endoftext|>",
    stops=("<|im_end|>", "<|endoftext|>"),
    template=_CHATML_TEMPLATE,
)

_BY_FAMILY = {"gpt_oss": HARMONY}


def chat_format(model_type: str) -> ChatFormat:
    """The format of the family `model_type`: its own, or ChatML, which most families use."""
    return _BY_FAMILY.get(model_type, CHATML)
