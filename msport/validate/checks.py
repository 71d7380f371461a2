"""Arguments that are refused before anything runs, and notes on faults that a run cannot show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msport.architectures import ModelConfig, load_config, read_config
from msport.errors import ConfigError, UsageError, parameter
from msport.hub import Source
from msport.validate.verdict.rules import RULES
from msport.validate.verdict.tolerance import SIGNIFICAND

LEVELS = ("logits", "layers", "weights")
REFERENCE_DTYPES = (*SIGNIFICAND, "model")


def check_arguments(
    tolerance: float | None, level: str, rule: str, max_length: int | None, seed: int, reference_dtype: str
) -> None:
    """Raises `UsageError` for an argument out of range."""
    if level not in LEVELS:
        raise UsageError(f"level {level!r} is none of {', '.join(LEVELS)}")
    if rule not in RULES:
        raise UsageError(f"rule {rule!r} is none of {', '.join(RULES)}")
    if reference_dtype not in REFERENCE_DTYPES:
        raise UsageError(f"reference_dtype {reference_dtype!r} is none of {', '.join(REFERENCE_DTYPES)}")
    if tolerance is not None and not 0.0 <= tolerance < float("inf"):
        raise UsageError(f"the tolerance is {tolerance}; give a number from 0 up, such as 1e-2")
    if max_length is not None and max_length < 1:
        raise UsageError(f"max_length is {max_length}; give a positive number of tokens")
    if seed < 0:
        raise UsageError(f"seed is {seed}; give 0 or a positive integer")


def check_no_effect(why: str, **options: Any) -> None:
    """Raises `UsageError` for options that were given (not None) but would be ignored."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        flags = ", ".join(parameter(name, "--" + name.removesuffix("s").replace("_", "-")) for name in given)
        raise UsageError(f"{why}, so that {flags} would have no effect; leave it out")


def check_same_sizes(folder: Path, source: Source) -> None:
    """Raises `ConfigError` if the two folders hold models of different sizes. Other differences are left to the
    comparison.
    """
    ours, theirs = load_config(folder), load_config(source.folder)
    for name in ("architecture", "vocab_size", "hidden_size", "num_hidden_layers"):
        if getattr(ours, name) != getattr(theirs, name):
            raise ConfigError(
                f"{source.folder}: not the model that {folder} was converted from: {name} is"
                f" {getattr(theirs, name)}, not {getattr(ours, name)}; give the original by {parameter('reference')}"
            )


def notes_on_config(folder: Path, source: Source) -> tuple[str, ...]:
    """A note on the fields in which the two config.json differ, because each side follows its own."""
    ours, theirs = read_config(folder), read_config(source.folder)
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    return (f"config.json differs from the reference's in {', '.join(differing)}",) if differing else ()


def notes_on(
    config: ModelConfig, longest: int, prefill_chunk: int, *, streamed: bool = False, given: bool = False
) -> tuple[str, ...]:
    """Notes on faults that prompts of at most `longest` tokens cannot show; `given`: the prompts are the user's own."""
    window = max((window for window in config.windows if window), default=0)
    original = config.rope.original_max_position_embeddings
    notes = []
    if longest <= window:
        notes.append(f"no prompt passes the window of {window} tokens: faults of the window cannot show")
    if longest <= prefill_chunk:
        notes.append(f"no prompt passes the prefill chunk of {prefill_chunk} tokens: faults between chunks cannot show")
    if original and longest <= original:
        notes.append(
            f"no prompt passes {original} positions, beyond which {config.rope.rope_type} extends the model:"
            f" {_longer(original + 2 * prefill_chunk, given)} to judge long contexts"
        )
    if streamed:
        notes.append("streamed: prompts ran one by one, so that faults of a batch cannot show")
    return tuple(notes)


def _longer(tokens: int, given: bool) -> str:
    return f"give a prompt of {tokens} tokens" if given else f"repeat with --max-length {tokens}"
