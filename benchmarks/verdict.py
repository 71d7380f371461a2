"""The accuracy of the verdict of ``msport validate``: false alarms among correct ports, and planted faults that it
finds.

    python benchmarks/verdict.py --right                    # 204 right ports: none may fail
    python benchmarks/verdict.py --faults                   # planted faults: every one must fail, where it was planted
    python benchmarks/verdict.py --faults --dtype float16   # the same, in half precision
    python benchmarks/verdict.py --published FOLDER         # both on a published model in the Hub's layout (SmolLM2)

Nothing is timed. Each run does what a user does: a checkpoint, its conversion, `validate_model` in this process. A
correct port is compared with the reference itself. A planted fault is compared with golden values, with --level layers,
so that every error is found from what the model computes, never by comparing its weights. The last line is JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import FAULTS, PUBLISHED_FAULTS, Fault, planted

from msport import convert_checkpoint, validate_model
from msport.convert.conversion import AUTO
from msport.sample import write_sample

FAMILIES = ("gpt-oss", "llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3-moe", "gemma2")
# Half precision may hide errors below three times its own noise.
HIDDEN = 3.0


@dataclass(frozen=True)
class Port:
    """One correct port: a sample of `family`, converted to `stored`, judged with `options`."""

    family: str
    seed: int
    kind: str
    shipped: str | None = None
    stored: str = AUTO
    options: dict[str, Any] = field(default_factory=dict)


def right_ports() -> Iterator[Port]:
    """Every family in every precision, packed experts, and contexts past 4,400 positions."""
    for seed in range(10):
        for family in FAMILIES:
            yield Port(family, seed, "float32")
            if seed < 6:
                yield Port(family, seed, "float16", options={"dtype": "float16"})
            if seed < 4:
                yield Port(family, seed, "weights rounded to bfloat16", "float32", "bfloat16")
            if seed < 3:
                yield Port(family, seed, "reference in bfloat16", options={"reference_dtype": "bfloat16"})
        yield Port("gpt-oss", seed, "packed experts", stored="mxfp4")
    for family in FAMILIES:
        yield Port(family, 0, "past 4,400 positions", options={"max_length": 4500})


def judge_right(ports: Sequence[Port], scratch: Path) -> list[dict[str, Any]]:
    """One row for each of `ports`: whether it passed, and the largest ratio of each kind of check."""
    rows = []
    for number, port in enumerate(ports):
        hub, converted = scratch / "hub", scratch / "ms"
        write_sample(port.family, hub, seed=port.seed, dtype=port.shipped)
        convert_checkpoint(hub, converted, dtype=port.stored)
        report = validate_model(converted, seed=port.seed, **port.options)
        rows.append({"family": port.family, "kind": port.kind, "seed": port.seed} | ratios(report))
        say(f"{number + 1:4} of {len(ports)}  {port.family:10} {port.kind:28} seed {port.seed}  {summary(rows[-1])}")
        shutil.rmtree(hub)
        shutil.rmtree(converted)
        gc.collect()
    return rows


def ratios(report: Any) -> dict[str, Any]:
    """The numbers of a report's judgement."""
    checks = report.judgement.checks
    kinds = {"median": "median", "largest": "largest"}
    found: dict[str, float] = {}
    for check in checks:
        kind = "lead" if check.metric == "lead of top-1" else kinds.get(check.statistic, "prompt")
        found[kind] = max(found.get(kind, 0.0), check.ratio)
    worst = max(result.largest for result in report.results)
    failing = [f"{c.metric}, {c.statistic}: {c.ratio:.3g}" for c in checks if not c.passed]
    return {
        "passed": report.passed,
        "largest_error": worst,
        "ratios": found,
        "excused": report.judgement.excused,
        "following": report.judgement.following,
        "why": failing[:3] if not report.passed else [],
    }


def judge_faults(
    faults: Sequence[Fault], hub: Path, converted: Path, scratch: Path, dtype: str | None, name: str
) -> list[dict[str, Any]]:
    """One row for each of `faults`, planted in copies of `converted`."""
    golden = scratch / "golden.safetensors"
    save_golden(hub, converted, golden)
    rows = []
    for fault in faults:
        rows.append({"family": name} | judge_fault(fault, converted, golden, scratch / "faulty", dtype))
        say_fault(rows[-1])
        gc.collect()
    golden.unlink()
    return rows


def judge_published(hub: Path, scratch: Path, dtype: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of the right ports of `hub`, and of its faults; every run has a process, so memory, of its own."""
    converted, golden, name = scratch / "published-ms", scratch / "golden.safetensors", {"family": hub.name}
    convert_checkpoint(hub, converted)
    right = []
    for computed in (None, "float16"):
        right.append(name | apart(judge_as_published, converted, computed))
        say(f"{right[-1]['kind']}  {summary(right[-1])}")
    apart(save_golden, hub, converted, golden)
    faults = []
    for number in range(len(PUBLISHED_FAULTS)):
        row = apart(judge_published_fault, number, converted, golden, scratch / "faulty", dtype)
        faults.append(name | row)
        say_fault(faults[-1])
    return right, faults


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a new process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def judge_as_published(converted: Path, dtype: str | None) -> dict[str, Any]:
    """The row of a right port."""
    return {"kind": f"published, {dtype or 'float32'}", "seed": 0} | ratios(validate_model(converted, dtype=dtype))


def judge_published_fault(number: int, *arguments: Any) -> dict[str, Any]:
    """The row of a published fault, by its number: a fault itself cannot be sent to a process."""
    return judge_fault(PUBLISHED_FAULTS[number], *arguments)


def save_golden(hub: Path, converted: Path, golden: Path) -> None:
    """Saves the values of the reference; ends the benchmark if the port without a fault fails."""
    right = validate_model(converted, hub, level="layers", save_reference=golden)
    if not right.passed:
        raise SystemExit(f"{hub.name}: the port without a fault fails: {right}")


def judge_fault(fault: Fault, converted: Path, golden: Path, faulty: Path, dtype: str | None) -> dict[str, Any]:
    """The row of `fault`, planted in a copy of `converted` at `faulty`."""
    with planted(fault, converted, faulty) as folder:
        report = validate_model(folder, golden, level="layers", dtype=dtype)
    shutil.rmtree(faulty, ignore_errors=True)
    return {"fault": fault.name, "kind": fault.kind} | ratios(report) | located(report, fault)


def say_fault(row: dict[str, Any]) -> None:
    where = f"{row['found_at']}{'' if row['located'] else '  NOT LOCATED'}"
    say(f"{row['family']:10} {row['fault']:44} {summary(row)}  {where}")


def located(report: Any, fault: Fault) -> dict[str, Any]:
    """The place of the fault according to the report, and whether it was planted there."""
    found = json.loads(report.to_json())["fault"] or {"layer": "", "operation": ""}
    place = (found["layer"], found["operation"] or "")
    paths = {result.path for result in report.results if result.failed}
    right = place in fault.places or (fault.path is not None and paths == {fault.path})
    return {"found_at": " ".join(place).strip() or " ".join(sorted(paths)), "located": right}


def summary(row: dict[str, Any]) -> str:
    said = "passed" if row["passed"] else "FAILED"
    times = max(row["ratios"].values(), default=0.0)
    excused = f", {row['excused']} excused" if row["excused"] else ""
    return f"{said}  {row['largest_error']:.1e}, {times:.3g} times the noise{excused} {'; '.join(row['why'][:1])}"


def conclude(right: Sequence[dict[str, Any]], faults: Sequence[dict[str, Any]]) -> bool:
    """Prints a summary of the runs; returns whether all are as expected."""
    good = True
    if right:
        alarms = [row for row in right if not row["passed"]]
        say(f"\n{len(right)} right ports, {len(alarms)} false alarms")
        for kind in sorted({row["kind"] for row in right}):
            of_kind = [row for row in right if row["kind"] == kind]
            largest = {
                name: max(row["ratios"].get(name, 0.0) for row in of_kind)
                for name in ("median", "prompt", "largest", "lead")
            }
            said = ", ".join(f"{name} {value:.2f}" for name, value in largest.items())
            say(f"  {kind:30} {len(of_kind):4} runs; largest ratios: {said}")
        good &= not alarms
    if faults:
        missed = [row for row in faults if row["passed"]]
        hidden = [row for row in missed if max(row["ratios"].values(), default=0.0) <= HIDDEN]
        lost = [row for row in faults if not row["passed"] and not row["located"]]
        kinds = len({row["kind"] for row in faults})
        say(f"\n{len(faults)} planted faults of {kinds} kinds: {len(faults) - len(missed)} found")
        say(f"  {len(hidden)} of the {len(missed)} others stay within {HIDDEN:g} times the noise")
        say(f"  {len(lost)} of those found were not located")
        good &= len(missed) == len(hidden) and not lost
    return good


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--right", action="store_true", help="judge right ports")
    parser.add_argument("--faults", action="store_true", help="plant faults")
    parser.add_argument("--published", type=Path, metavar="FOLDER", help="a published model, for both")
    parser.add_argument("--dtype", help="what the faulty ports compute in (default: the device's best)")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this one; may be repeated")
    parser.add_argument("--kind", help="only right ports, or faults, of this kind")
    parser.add_argument("--share", default="1/1", help="only the i-th of n parts of the right ports: i/n")
    arguments = parser.parse_args()
    families = arguments.family or FAMILIES
    part, parts = (int(number) for number in arguments.share.split("/"))
    right: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="msport-verdict-") as folder:
        scratch = Path(folder)
        if arguments.right:
            ports = [port for port in right_ports() if port.family in families and arguments.kind in (None, port.kind)]
            right += judge_right(ports[part - 1 :: parts], scratch)
        if arguments.faults:
            for family in families:
                hub, converted = scratch / family, scratch / f"{family}-ms"
                write_sample(family, hub)
                convert_checkpoint(hub, converted)
                of_kind = [fault for fault in FAULTS if arguments.kind in (None, fault.kind)]
                chosen = [fault for fault in of_kind if family in fault.families]
                faults += judge_faults(chosen, hub, converted, scratch, arguments.dtype, family)
        if arguments.published:
            rows = judge_published(arguments.published, scratch, arguments.dtype)
            right += rows[0]
            faults += rows[1]
    good = conclude(right, faults)
    say(json.dumps({"benchmark": "verdict", "right": right, "faults": faults}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
