"""Threads take turns, and a caller learns when another has overwritten what it goes on from."""

from __future__ import annotations

import threading
from dataclasses import dataclass

# Held while anything of MindSpore's is compiled or run. Its compiler and runtime keep global state: two threads in them
# crash the process, also where each has a network of its own (seen with 2.10).
TURN = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """What stands in the caches: `count` sequences that the method `caller` began. Two of them are never equal."""

    caller: str
    count: int
