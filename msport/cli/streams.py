"""Standard streams that the caller has closed (``2>&-``)."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Lets stdout and stderr lead nowhere where they are closed.

    Otherwise the next file that is opened takes the descriptor, and what MindSpore prints goes into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
