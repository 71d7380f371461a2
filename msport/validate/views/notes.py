"""Notes on faults that a run cannot show."""

from __future__ import annotations

from pathlib import Path

from msport.architectures import ModelConfig, read_config
from msport.hub import Source


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
