"""The Ascend graphs of a tiny config of every family, and of packed gpt-oss, built in child processes."""

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
from msport.msmodels import ascend_check
from msport.progress import Progress

PACKED_GPT_OSS = "gpt_oss, mxfp4"
LAYERS = 2
# Sizes that no other axis has: two sequences, chunks of 16.
SIZES = {"max_length": 64, "batch_size": 2, "prefill_chunk": 16}


def check_all(dtype: str) -> dict[str, dict[str, Any]]:
    """`AscendReport.to_document` of every family by model type; packed gpt-oss too.

    Two children share the work: MindSpore's front end keeps one processor busy.
    """
    names = [family.model_type for family in ARCHITECTURES.values()]
    if dtype == "bfloat16":
        names.append(PACKED_GPT_OSS)

    def build(share: list[str]) -> dict[str, dict[str, Any]]:
        arguments = {"dtype": dtype, "names": share}
        reports: dict[str, dict[str, Any]] = call_in_child(
            "msmodels.ascend_families:build", arguments, task="building every family's graphs", timeout=3600
        )
        return reports

    with ThreadPoolExecutor() as pool:
        first, second = pool.map(build, (names[::2], names[1::2]))
    reports = first | second
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
            model_type, _, packed = name.partition(", ")
            family = next(family for family in ARCHITECTURES.values() if family.model_type == model_type)
            where = write_config(family, Path(folder) / name)
            reports[name] = ascend_check.check_ascend(where, packed or dtype, **SIZES).to_document()
        return reports


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
