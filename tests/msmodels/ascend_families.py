"""The Ascend graphs of a tiny config of every family, and of packed checkpoints, built in child processes."""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msport.architectures import ARCHITECTURES, Architecture
from msport.child import call_in_child
from msport.convert import convert_checkpoint
from msport.msmodels import ascend_check
from msport.progress import Progress
from msport.sample import write_sample

PACKED_GPT_OSS = "gpt_oss, mxfp4"
QUANTISED = ("llama, int4", "llama, int8", "qwen3_moe, int4", "qwen3_moe, int8")
ZERO_POINTS = " with zero points"
LAYERS = 2
# Sizes that no other axis has: two sequences, chunks of 16.
SIZES = {"max_length": 64, "batch_size": 2, "prefill_chunk": 16}


def check_all(dtype: str) -> dict[str, dict[str, Any]]:
    """`AscendReport.to_document` of every family by model type; packed gpt-oss and quantised models too."""
    names = [family.model_type for family in ARCHITECTURES.values()]
    return check(dtype, *names, *((PACKED_GPT_OSS, *QUANTISED) if dtype == "bfloat16" else ()))


def check(dtype: str, *names: str) -> dict[str, dict[str, Any]]:
    """`AscendReport.to_document` of each of `names`: a model type, perhaps with how the weights are stored.

    Two children share the work: MindSpore's front end keeps one processor busy.
    """

    def build(share: list[str]) -> dict[str, dict[str, Any]]:
        arguments = {"dtype": dtype, "names": share}
        reports: dict[str, dict[str, Any]] = call_in_child(
            "msmodels.ascend_families:build", arguments, task="building every family's graphs", timeout=3600
        )
        return reports

    shares = [list(share) for share in (names[::2], names[1::2]) if share]
    with ThreadPoolExecutor() as pool:
        reports = {name: report for share in pool.map(build, shares) for name, report in share.items()}
    return {name: reports[name] for name in names}


def build(dtype: str, names: list[str], *, progress: Progress) -> dict[str, dict[str, Any]]:
    """Runs in a child: MindSpore is imported once for all of `names`."""
    from msport.msmodels import mindir

    def call_here(function: str, arguments: Mapping[str, Any], **_: Any) -> Any:
        assert function == "msport.msmodels.mindir:build_graphs"
        return mindir.build_graphs(**arguments, progress=progress)

    with patch.object(ascend_check, "call_in_child", call_here), tempfile.TemporaryDirectory() as folder:
        reports = {}
        for name in names:
            model_type, _, storage = name.partition(", ")
            family = next(family for family in ARCHITECTURES.values() if family.model_type == model_type)
            if storage.startswith("int"):
                where, chosen = write_quantised(family, Path(folder) / name, storage), dtype
            else:
                where, chosen = write_config(family, Path(folder) / name), storage or dtype
            reports[name] = ascend_check.check_ascend(where, chosen, **SIZES).to_document()
        return reports


def write_quantised(family: Architecture, folder: Path, storage: str) -> Path:
    """A tiny checkpoint, converted to `storage`: int4 or int8, perhaps `ZERO_POINTS`."""
    overrides = {"num_hidden_layers": LAYERS}
    hub = write_sample(family.title, folder / "hub", dtype="bfloat16", overrides=overrides)
    convert_checkpoint(hub, folder / "ms", dtype=storage[:4], zero_points=storage.endswith(ZERO_POINTS))
    return folder / "ms"


def examine(folder: str, dtype: str, *, progress: Progress) -> dict[str, Any]:
    """`check_ascend`, and what the process that it started held at most; runs in a child, which has no other."""
    report = ascend_check.check_ascend(folder, dtype)
    return {
        "passed": report.passed,
        "attention": [part.is_fused for graph in report.graphs for part in graph.parts if part.name == "attention"],
        "weight_bytes": report.weight_bytes,
        "cache_bytes": report.cache_bytes,
        "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }


def build_with_a_wrong_operator(folder: str, *, progress: Progress) -> None:
    """The graphs of `folder` with an activation that does not halve its input; runs in a child."""
    from msport.msmodels import mindir
    from msport.msmodels.ops.ascend import signatures

    signatures.swiglu = _leave_as_it_is
    mindir.build_graphs(folder, "bfloat16", False, 64, 2, 16, progress=progress)


def _leave_as_it_is(x: Any) -> Any:
    return x


def write_config(family: Architecture, folder: Path, **changes: Any) -> Path:
    """A folder with nothing but the family's tiny config, of `LAYERS` layers."""
    config = {**family.sample_config(), "num_hidden_layers": LAYERS, **changes}
    if "layer_types" in config:
        config["layer_types"] = config["layer_types"][:LAYERS]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder
