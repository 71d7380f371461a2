"""Token ids in a model's config.json and generation_config.json: those that end, begin or pad a text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msport.checkpoint import strict_json
from msport.errors import ConfigError, quote

_FILES = ("generation_config.json", "config.json")
_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read_stop_ids(folder: Path) -> frozenset[int]:
    """The ids that end a generation: `eos_token_id`, one or a list, of generation_config.json, else of config.json.

    Raises `ConfigError` if a file is malformed or the field holds anything else.
    """
    for where, document in _documents(folder):
        value = document.get("eos_token_id")
        if value is not None:
            return frozenset(_ids(value, "eos_token_id", where))
    return frozenset()


def read_special_ids(folder: Path) -> frozenset[int]:
    """All bos, eos and pad ids in the two files. Raises `ConfigError` as `read_stop_ids`."""
    found: set[int] = set()
    for where, document in _documents(folder):
        for key in _KEYS:
            # Llama's first conversions use pad_token_id -1 for "none".
            if document.get(key) not in (None, -1):
                found.update(_ids(document[key], key, where))
    return frozenset(found)


def _documents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name in _FILES:
        where = folder / name
        try:
            yield where, strict_json.load_settings(where)
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise ConfigError(f"{where}: {error}; take it from the model's repository again") from None


def _ids(value: Any, key: str, where: Path) -> tuple[int, ...]:
    ids = strict_json.naturals(value if isinstance(value, list) else [value])
    if ids is None:
        raise ConfigError(
            f"{where}: {key} is {quote(value)}, not a token id or a list of them;"
            " take it from the model's repository again"
        )
    return ids
