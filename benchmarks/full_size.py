"""A checkpoint of the size of gpt-oss-20b with random weights, and msport's commands on it, each in its own process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from synthetic import GPT_OSS_20B

_SIZES = {**GPT_OSS_20B, "num_experts_per_tok": 4}


def write_sample_of_full_size(folder: Path, layers: int) -> None:
    """Writes the sample. The 20b has 24 `layers` and needs 13.8 GB."""
    sizes = {**_SIZES, "num_hidden_layers": layers}
    timed("sample", "gpt-oss", str(folder), *(f"--set={name}={size}" for name, size in sizes.items()))


def timed(command: str, *arguments: str, expected: tuple[int, ...] = (0,)) -> float:
    """Runs an msport command and shows its output; returns its time in seconds."""
    began = time.perf_counter()
    status = subprocess.run([sys.executable, "-m", "msport", command, *arguments], check=False).returncode
    seconds = time.perf_counter() - began
    print(f"# {command}: {seconds:.0f} s", flush=True)
    if status not in expected:
        sys.exit(f"msport {command} ended with exit code {status}")
    return seconds
