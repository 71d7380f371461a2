"""Fuzz readers with inputs that coverage guides, each for a number of inputs, one after the other.

    cd tests && python -m fuzz                            # every target, a million inputs each
    cd tests && python -m fuzz ckpt --runs 50000 --seed 7

Needs the extra ``fuzz``. An input that makes a reader crash, work for ten seconds, or take half a gigabyte stops that
target, as does one that hangs for ten minutes. It is kept in ``fuzz-findings`` of the current folder, and the exit
status is 1. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from fuzz.targets import TARGETS, Target, scratch_folder

LONGEST_INPUT = 4096
LIMITS = ["-timeout=600", "-rss_limit_mb=512", f"-max_len={LONGEST_INPUT}", "-print_final_stats=1"]
FINDINGS = Path("fuzz-findings")


def main() -> int:
    arguments = parse_arguments()
    results = []
    for name in arguments.targets or TARGETS:
        results.append(fuzz(name, TARGETS[name], arguments.runs, arguments.seed))
        print("{target:12} {inputs:>9} inputs, {seconds:.0f} s, {coverage} branches".format(**results[-1]), flush=True)
    print(json.dumps({"fuzz": results}))
    return 0 if all(result["passed"] for result in results) else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"among {', '.join(TARGETS)} (default all)")
    parser.add_argument("--runs", type=int, default=1_000_000, help="inputs a target (default a million)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice of inputs (default 1)")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - TARGETS.keys():
        parser.error(f"no target {', '.join(sorted(unknown))}: choose among {', '.join(TARGETS)}")
    return arguments


def fuzz(name: str, target: Target, runs: int, seed: int) -> dict[str, Any]:
    """Run one fuzzer in a process of its own; what it printed is shown if it found something."""
    FINDINGS.mkdir(exist_ok=True)
    begin = time.monotonic()
    with scratch_folder() as folder:
        corpus, dictionary = Path(folder) / "corpus", Path(folder) / "words"
        write_corpus(corpus, target.seeds)
        dictionary.write_text("".join(f'"{quoted(word)}"\n' for word in target.words))
        options = [
            *LIMITS,
            f"-runs={runs}",
            f"-seed={seed}",
            f"-dict={dictionary}",
            f"-artifact_prefix={FINDINGS}/{name}-",
        ]
        command = [sys.executable, "-m", "fuzz.engine", name, folder, *options, str(corpus)]
        child = subprocess.run(command, capture_output=True, text=True, errors="backslashreplace")
    if child.returncode:
        print(child.stdout[-4000:], child.stderr[-8000:], sep="\n", file=sys.stderr)
    if not any(FINDINGS.iterdir()):
        FINDINGS.rmdir()
    return {
        "target": name,
        "passed": child.returncode == 0,
        "inputs": found(r"stat::number_of_executed_units:\s*(\d+)", child.stderr),
        "peak_megabytes": found(r"stat::peak_rss_mb:\s*(\d+)", child.stderr),
        "coverage": found(r"cov: (\d+)", child.stderr),
        "seconds": round(time.monotonic() - begin, 1),
    }


def write_corpus(folder: Path, seeds: list[bytes]) -> None:
    folder.mkdir()
    for index, seed in enumerate(seeds):
        (folder / f"seed-{index:03}").write_bytes(seed)


def quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def found(pattern: str, text: str) -> int:
    """The last number that `pattern` finds, 0 if there is none."""
    return int((re.findall(pattern, text) or ["0"])[-1])


if __name__ == "__main__":
    sys.exit(main())
