"""Portable and fused operators on an Ascend NPU against golden logits, family by family: ``make ascend-acceptance``.

First every fused operator alone against its documented meaning, then a sample of every family in bfloat16 and float16,
in prompt chunks and token by token. Writes ``report.json`` and ``report.txt``; exit 0 all passed, 1 something did not,
2 there is no NPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from acceptance.golden import FAMILIES, KEPT, Golden, load, relative_errors, sample
from msport.child import call_in_child
from msport.convert import convert_checkpoint
from msport.doctor import diagnose
from msport.errors import MsportError
from msport.progress import Progress

NO_NPU = "ascend-acceptance: there is no Ascend NPU here (MindSpore computes on {}); run it on one, see docs/ascend.md"
TIMEOUT_SECONDS = 1800
# How often Transformers' own rounding error in the same dtype, and what is always allowed.
FACTOR, LEAST = 4.0, {"bfloat16": 2e-2, "float16": 4e-3}
# An operator rounds its result, and some round once more inside.
OPERATOR_LIMIT = {"bfloat16": 2e-2, "float16": 4e-3}
# On a CPU only this script is tried: float32, and float16 golden logits.
REHEARSAL_LIMIT = 1e-3
DECODED = 4
PACKED = "mxfp4"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("ascend-acceptance"), help="folder for the report")
    parser.add_argument("--family", action="append", choices=FAMILIES, help="only this one; may be repeated")
    parser.add_argument("--rehearse", action="store_true", help="try this script on a CPU, with its own operators")
    options = parser.parse_args(arguments)
    device = call_in_child("acceptance.ascend:device_target", {}, task="asking MindSpore for its device")
    if device != "Ascend" and not options.rehearse:
        print(NO_NPU.format(device), file=sys.stderr)
        return 2
    results = _run(options.family or list(FAMILIES), options.rehearse)
    text = "\n".join(_line(result) for result in results)
    passed = all(result["passed"] for result in results)
    options.output.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": "msport.ascend-acceptance/1",
        "passed": passed,
        "rehearsal": options.rehearse,
        "doctor": diagnose().to_document(),
        "results": results,
    }
    (options.output / "report.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.output / "report.txt").write_text(text + "\n")
    print(f"{'passed' if passed else 'FAILED'}; the report is in {options.output.resolve()}")
    return 0 if passed else 1


def device_target(*, progress: Progress) -> str:
    """Where MindSpore computes; runs in a child, for a broken CANN may take the process with it."""
    import mindspore as ms

    target: str = ms.get_context("device_target")
    return target


def _run(families: Sequence[str], rehearse: bool) -> list[dict[str, Any]]:
    results = []

    def add(result: dict[str, Any]) -> None:
        results.append(result)
        print(_line(result), flush=True)

    dtypes = ("float32",) if rehearse else ("bfloat16", "float16")
    if not rehearse:
        for dtype in dtypes:
            for result in _operators(dtype):
                add(result)
    for family in families:
        golden = load(family)
        with tempfile.TemporaryDirectory() as scratch:
            folders = _convert(family, Path(scratch))
            for kind, folder in folders.items():
                for operators in ("portable", "cpu") if rehearse else ("portable", "ascend"):
                    # Packed experts compute in the device's best dtype, whatever is asked for.
                    for dtype in dtypes[:1] if kind == PACKED else dtypes:
                        add(_family(family, kind, folder, operators, dtype, golden))
    return results


def _operators(dtype: str) -> list[dict[str, Any]]:
    shared = {"what": "operator", "dtype": dtype, "limit": OPERATOR_LIMIT[dtype]}
    try:
        errors = call_in_child(
            "acceptance.operators:operator_errors", {"dtype": dtype}, task="the operators", timeout=TIMEOUT_SECONDS
        )
    except MsportError as error:
        return [{**shared, "name": "all", "passed": False, "error": None, "reason": str(error)}]
    return [
        {**shared, "name": name, "passed": False, "error": None, "reason": error}
        if isinstance(error, str)
        else {**shared, "name": name, "passed": error <= OPERATOR_LIMIT[dtype], "error": error, "reason": None}
        for name, error in errors.items()
    ]


def _convert(family: str, scratch: Path) -> dict[str, Path]:
    """The family's sample, converted; gpt-oss also with experts that stay packed."""
    hub = sample(family, scratch / "hub")
    folders = {"plain": scratch / "plain"}
    convert_checkpoint(hub, folders["plain"])
    if family == "gpt-oss":
        folders[PACKED] = scratch / PACKED
        convert_checkpoint(hub, folders[PACKED], dtype=PACKED)
    return folders


def _family(family: str, kind: str, folder: Path, operators: str, dtype: str, golden: Golden) -> dict[str, Any]:
    limit = REHEARSAL_LIMIT if dtype == "float32" else max(FACTOR * golden.errors[dtype], LEAST[dtype])
    name = family if kind == "plain" else f"{family}, {kind}"
    result = {"what": "family", "name": name, "operators": operators, "dtype": dtype, "limit": limit}
    try:
        logits = call_in_child(
            "acceptance.ascend:last_logits",
            {"folder": str(folder), "dtype": PACKED if kind == PACKED else dtype, "ids": golden.ids.tolist()},
            task=f"{name} with {operators} operators in {dtype}",
            environment={"MSPORT_OPS": operators},
            timeout=TIMEOUT_SECONDS,
        )
    except MsportError as error:
        return {**result, "passed": False, "error": None, "reason": str(error)}
    chunks = relative_errors(golden.logits, np.array(logits["chunks"]))
    decoded = relative_errors(golden.logits[-DECODED:], np.array(logits["decoded"]))
    # Where rounding sends a token to another expert, that position differs by far more: the middle one counts.
    error = max(_middle(chunks), _middle(decoded))
    worst = float(max(chunks.max(), decoded.max()))
    return {**result, "passed": error <= limit, "error": error, "reason": None, "worst": worst, "ran": logits["dtype"]}


def _middle(errors: np.ndarray) -> float:
    return float(np.median(errors)) if np.isfinite(errors).all() else float("inf")


def last_logits(folder: str, dtype: str, ids: list[int], *, progress: Progress) -> dict[str, Any]:
    """Logits at the last positions, in chunks of a prompt and decoded one by one; runs in a child."""
    from msport import load_model

    model = load_model(folder, dtype, max_length=len(ids) + 8, prefill_chunk=16)
    chunks = model.logits([ids])[0, -KEPT:]
    # The logits after each of the last tokens: the first come with the prompt, the others one by one.
    decoded = [model.prefill([ids[: len(ids) - DECODED + 1]])[0]]
    decoded += [model.decode([token])[0] for token in ids[len(ids) - DECODED + 1 :]]
    return {"chunks": chunks.tolist(), "decoded": [row.tolist() for row in decoded], "dtype": model.dtype}


def _line(result: dict[str, Any]) -> str:
    verdict = "pass" if result["passed"] else "FAIL"
    name = f"{result['name']} ({result['operators']})" if result["what"] == "family" else result["name"]
    worst = f", worst position {result['worst']:.1e}" if result.get("worst") is not None else ""
    figure = result["reason"] or f"relative error {result['error']:.1e} of {result['limit']:.1e} allowed{worst}"
    return f"{verdict}  {result['dtype']:<8}  {name:<28}  {figure}"


if __name__ == "__main__":
    sys.exit(main())
