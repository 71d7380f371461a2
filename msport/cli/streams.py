"""Standard streams that the caller closed (``2>&-``)."""

from __future__ import annotations

import os
import sys


def open_closed_streams() -> None:
    """Redirects closed stdout and stderr to the null device.

    Otherwise the next opened file would get the free descriptor, and MindSpore's output would go into that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8", closefd=False))
