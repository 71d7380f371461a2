"""Lets threads take turns, and detects when another call has overwritten the caches."""

from __future__ import annotations

import threading
from dataclasses import dataclass

# Held while MindSpore compiles or runs anything. Its compiler and runtime have global state: two threads in them crash
# the process, even if each has its own network (seen with 2.10).
TURN = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """The sequences in the caches: `count` of them, begun by the method `caller`. Two objects are never equal."""

    caller: str
    count: int
