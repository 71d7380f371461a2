"""The support table of the READMEs, from the registry: ``python tests/docs/support.py`` prints both languages."""

from __future__ import annotations

from msport.architectures import ARCHITECTURES

_CHINESE = {
    "MXFP4 and bfloat16 experts": "MXFP4 与 bfloat16 专家",
    "RoPE linear, YaRN, llama3": "RoPE 缩放：linear、YaRN、llama3",
    "alternating window": "滑动窗口与全注意力逐层交替",
    "attention sinks": "attention sink",
    "biases": "偏置",
    "biases on q, k, v": "q、k、v 带偏置",
    "dense layers among sparse ones": "可夹有稠密层",
    "explicit head_dim": "head_dim 单独指定",
    "four norms": "每层四个归一化",
    "normalised queries and keys": "q、k 归一化",
    "soft-caps on scores and logits": "注意力分数与 logits 的 soft-cap",
    "tied head": "输出层与词嵌入共享权重",
    "top-k experts, renormalised": "top-k 专家，权重重新归一化",
    "top-k experts, renormalised or not": "top-k 专家，权重可重新归一化",
    "window from a layer on": "从某层起使用滑动窗口",
    "window on every layer, or none": "各层均用滑动窗口，或均不用",
}


def table() -> str:
    rows = [(", ".join(a.models), ", ".join(a.features)) for a in ARCHITECTURES.values()]
    return _table(("architecture", "models", "what is computed"), rows)


def chinese_table() -> str:
    """A feature that has no translation yet stays in English."""
    rows = [
        (
            "、".join(a.models).replace(", ", "、").replace(" to ", " 至 "),
            "；".join(_CHINESE.get(f, f) for f in a.features),
        )
        for a in ARCHITECTURES.values()
    ]
    return _table(("架构", "模型", "实现的内容"), rows)


def _table(head: tuple[str, ...], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [
        f"| `{name}` | {models} | {computed} |" for name, (models, computed) in zip(ARCHITECTURES, rows, strict=True)
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), chinese_table(), sep="\n\n")
