"""The additional time of the reference for measuring its noise.

    python benchmarks/noise.py FOLDER [--rounds 2]     # FOLDER: a checkpoint in the Hub's layout, such as SmolLM2's

Each round loads the reference and runs the default prompts of ``msport validate``, once without the second run and once
with it, in separate processes in turn. The time includes loading and running. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MEASURED = "--measured"


def measure(folder: Path, with_noise: bool) -> float:
    """Seconds of the reference in this process, from its import on."""
    began = time.perf_counter()
    from msport.architectures import load_config
    from msport.sizing.costs import PREFILL_CHUNK
    from msport.validate.prompts import choose_prompts
    from msport.validate.recording import RecordingWriter
    from msport.validate.reference.loading import load_reference
    from msport.validate.reference.noise import NoisePlan, noise_lengths
    from msport.validate.reference.run import record

    config = load_config(folder)
    prompts = choose_prompts(folder, config, None, PREFILL_CHUNK, None, 0)
    lengths = noise_lengths([len(prompt.ids) for prompt in prompts])
    plan = NoisePlan(lengths, ("float32",), "float32", None, 0) if with_noise else None
    with (
        tempfile.TemporaryDirectory() as scratch,
        RecordingWriter(Path(scratch), prompts, config.vocab_size) as writer,
    ):
        record(load_reference(folder), prompts, writer, noise=plan)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(_MEASURED, choices=["with", "without"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measured:
        print(measure(arguments.folder, arguments.measured == "with"))
        return
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(arguments.rounds):
        for kind, found in seconds.items():
            command = [sys.executable, __file__, str(arguments.folder), _MEASURED, kind]
            found.append(float(subprocess.check_output(command, text=True).splitlines()[-1]))
            print(f"{kind:8} noise: {found[-1]:.1f} s", flush=True)
    added = [more / less - 1 for more, less in zip(seconds["with"], seconds["without"], strict=True)]
    print(f"the noise adds {min(added):.0%} to {max(added):.0%}")
    print(json.dumps({"benchmark": "noise", "seconds": seconds, "added": added}))


if __name__ == "__main__":
    main()
