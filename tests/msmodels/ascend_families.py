"""The Ascend graphs of a tiny config of every family, and of packed gpt-oss, built one after the other in a child."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from msport.architectures import ARCHITECTURES, Architecture
from msport.child import Progress, call_in_child
from msport.msmodels import ascend_check

PACKED_GPT_OSS = "gpt_oss, mxfp4"
LAYERS = 2
# Sizes that no other axis has: two sequences, chunks of 16.
SIZES = {"max_length": 64, "batch_size": 2, "prefill_chunk": 16}


def check_all(dtype: str) -> dict[str, dict[str, Any]]:
    """`AscendReport.to_document` of every family by model type; packed gpt-oss too."""
    reports: dict[str, dict[str, Any]] = call_in_child(
        "msmodels.ascend_families:build_all", {"dtype": dtype}, task="building every family's graphs", timeout=600
    )
    return reports


def build_all(dtype: str, *, progress: Progress) -> dict[str, dict[str, Any]]:
    """Runs in the child: MindSpore is imported once for all families."""
    from msport.msmodels import mindir

    def call_here(function: str, arguments: Mapping[str, Any], **_: Any) -> Any:
        assert function == "msport.msmodels.mindir:build_graphs"
        return mindir.build_graphs(**arguments, progress=progress)

    with patch.object(ascend_check, "call_in_child", call_here), tempfile.TemporaryDirectory() as folder:
        reports = {}
        for family in ARCHITECTURES.values():
            where = write_config(family, Path(folder) / family.model_type)
            reports[family.model_type] = ascend_check.check_ascend(where, dtype, **SIZES).to_document()
        if dtype == "bfloat16":
            where = Path(folder) / "gpt_oss"
            reports[PACKED_GPT_OSS] = ascend_check.check_ascend(where, "mxfp4", **SIZES).to_document()
        return reports


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
