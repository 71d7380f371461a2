"""A checkpoint of the size of gpt-oss-20b with random weights, and msport's commands on it, each in its own process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

# config.json of openai/gpt-oss-20b, where it differs from the sample's.
SIZES = {
    "head_dim": 64,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "num_experts_per_tok": 4,
    "sliding_window": 128,
    "vocab_size": 201088,
}


def write_sample_of_full_size(folder: Path, layers: int) -> None:
    """The 20b has 24 `layers` and then takes 13.8 GB."""
    timed(
        "sample",
        "gpt-oss",
        str(folder),
        *(f"--set={name}={size}" for name, size in SIZES.items()),
        f"--set=num_hidden_layers={layers}",
    )


def timed(command: str, *arguments: str, expected: tuple[int, ...] = (0,)) -> float:
    """Runs an msport command, whose output is shown; its seconds."""
    began = time.perf_counter()
    status = subprocess.run([sys.executable, "-m", "msport", command, *arguments], check=False).returncode
    seconds = time.perf_counter() - began
    print(f"# {command}: {seconds:.0f} s", flush=True)
    if status not in expected:
        sys.exit(f"msport {command} ended with exit code {status}")
    return seconds
