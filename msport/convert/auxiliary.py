"""The files of a model folder that are not weights, copied as they came."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from msport.checkpoint import write_atomically

AUXILIARY_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def find_auxiliary(folder: Path) -> tuple[Path, ...]:
    """Those of `AUXILIARY_FILES` that are in `folder`."""
    return tuple(folder / name for name in AUXILIARY_FILES if (folder / name).is_file())


def copy_auxiliary(files: Iterable[Path], folder: Path) -> None:
    """Copy `files` into `folder` byte for byte, durably."""
    for file in files:
        write_atomically(folder / file.name, file.read_bytes())
