"""What is fuzzed: functions of one input that return whatever it is, and raise only when msport is wrong.

Each compares msport with another reader of the same format, so that it must not only survive but be right.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz import ckpt_target, index_target, journal_target, json_target, safetensors_target


@dataclass(frozen=True)
class Target:
    """A format: how an input is checked, the inputs to begin with, and words that inputs are made of."""

    check: Callable[[Path, bytes], None]  # the path is one where the input may be written
    seeds: list[bytes]
    words: list[bytes]


TARGETS = {
    "safetensors": Target(safetensors_target.check, safetensors_target.seeds(), safetensors_target.WORDS),
    "index": Target(index_target.check, index_target.seeds(), index_target.WORDS),
    "ckpt": Target(ckpt_target.check, ckpt_target.seeds(), ckpt_target.WORDS),
    "json": Target(json_target.check, json_target.seeds(), json_target.WORDS),
    "journal": Target(journal_target.check, journal_target.seeds(), journal_target.WORDS),
}


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder in memory, where there is one: a million inputs are not for the disk."""
    memory = "/dev/shm"
    return tempfile.TemporaryDirectory(prefix="msport-fuzz-", dir=memory if os.access(memory, os.W_OK) else None)
