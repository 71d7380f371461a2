"""Tensors whose names differ only in numbers are shown as one pattern."""

from __future__ import annotations

from pathlib import Path

from msport.cli.tensor_patterns import summarise
from msport.convert import inspect_path


def test_names_that_differ_in_a_number_are_one_pattern(converted: Path) -> None:
    tensors = inspect_path(converted).tensors
    patterns = {pattern.name: pattern for pattern in summarise(tensors.values())}
    sinks = patterns["model.layers.*.self_attn.sinks"]
    assert (sinks.count, sinks.shape, sinks.nbytes) == (2, (8,), 32)
    assert patterns["lm_head.weight"].count == 1
    assert sum(pattern.count for pattern in patterns.values()) == len(tensors)
