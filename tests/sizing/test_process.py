"""What a process held at most is read where the system counts it for this process alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from msport.sizing.process import peak_memory, read_memory


def test_the_peak_is_that_of_the_process_and_not_of_its_parent(tmp_path: Path) -> None:
    ballast = bytearray(300_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    program = "from msport.sizing.process import peak_memory; print(peak_memory())"
    child = int(subprocess.check_output([sys.executable, "-c", program], text=True))
    assert peak_memory() > len(ballast)
    assert child < 150_000_000
    assert read_memory(status=tmp_path / "absent").peak_resident > len(ballast), "where it does not say, getrusage does"


def test_the_peak_is_at_least_what_is_resident_now() -> None:
    block = bytearray(b"x") * (64 << 20)
    memory = read_memory()
    del block
    assert memory.private is not None
    assert memory.mapped is not None
    assert memory.peak_resident >= memory.private + memory.mapped - (1 << 22)
    # It never falls, but the kernel adds up each processor's pages only now and then.
    assert read_memory().peak_resident >= memory.peak_resident - (1 << 22)
