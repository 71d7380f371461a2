"""Figures that others published about these models on Ascend. This project measured none of them.

The table in docs/published-figures.md is `markdown_table` of the rows below; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HEADING = "PUBLISHED by others on other machines, not measured here"


@dataclass(frozen=True, slots=True)
class Published:
    """One published row: the model's name and architecture, the hardware and software, and the figures as published."""

    architecture: str
    model: str
    stack: str
    figures: str


PUBLISHED = (
    Published(
        "GptOssForCausalLM",
        "gpt-oss-20b",
        "one Ascend 910B, torch_npu, Transformers",
        "15.0 to 24.6 tokens/s over five prompts (18.95 in the first run); 1.0 to 3.5 s per generation",
    ),
    Published(
        "Qwen2ForCausalLM",
        "Qwen2.5-14B-Instruct, float16",
        "Atlas 800T 32 GB, torch_npu",
        "22.8 tokens/s mean (single questions 10.6, 11.7, 12.6); 2.34 s for 50 tokens; batch 2 scales 1.2 times;"
        " 28.4 GB on disk",
    ),
    Published(
        "MistralForCausalLM",
        "Mistral-7B-Instruct-v0.2, float16",
        "one Ascend 910B, torch_npu",
        "120 new tokens: Chinese 17.74, English 18.23, code 18.24, reasoning 18.64, long context 18.32 tokens/s;"
        " 15.02 GB",
    ),
    Published(
        "Gemma2ForCausalLM",
        "Gemma-2-2b-it, float16",
        "one Ascend 910B, torch_npu",
        "23.68 tokens/s; 42 ms per token; 3.82 GB loaded, 3.92 GB peak; spread 5 %",
    ),
    Published(
        "Gemma2ForCausalLM",
        "Gemma 2 9B, 4 bit",
        "SGLang / vLLM-Ascend, a server",
        "155.8 / 129.8 requests/s (32 concurrent, 128 tokens in, 256 out); 38.2 / 31.5 (16 concurrent, 1024 in, 512"
        " out); 5.5 / 6.0 GB",
    ),
)


def published_about(architecture: str) -> tuple[Published, ...]:
    """The rows about models of `architecture`."""
    return tuple(row for row in PUBLISHED if row.architecture == architecture)


def describe_published(architecture: str) -> Iterator[str]:
    """Lines about `architecture` for a terminal, marked as published by others."""
    rows = published_about(architecture)
    yield f"{HEADING}:" if rows else f"{HEADING}: no figures are known for {architecture}"
    for row in rows:
        yield f"  {row.model} on {row.stack}:"
        yield f"    {row.figures}"


def markdown_table() -> str:
    """All rows as the table of the document."""
    head = ["| model | ran on | published figures |", "|---|---|---|"]
    return "\n".join([*head, *(f"| {row.model} | {row.stack} | {row.figures} |" for row in PUBLISHED)])
