"""Checks a model's Ascend graphs with MindSpore's front end."""

from __future__ import annotations

from pathlib import Path

from msport.doctor.check import Check, failed, passed
from msport.doctor.diagnosis import Diagnosis
from msport.errors import MsportError
from msport.msmodels.ascend_check import AscendGraph, AscendReport, check_ascend
from msport.report.formatting import in_other_dtypes
from msport.sizing.units import format_size

NOT_MEASURED = "the graphs were inferred, not run; an NPU may still reject them"
_REPORT = "report it with the output of msport doctor; MSPORT_OPS=portable does without fused operators"


def diagnose_ascend(folder: str | Path, *, dtype: str | None, max_length: int, batch: int, timeout: float) -> Diagnosis:
    """Builds the Ascend graphs of the model in `folder`. Every problem becomes a failed check."""
    try:
        report = check_ascend(folder, dtype, max_length, batch, timeout=timeout)
    except MsportError as error:
        return Diagnosis((failed("Ascend graphs", str(error), _REPORT),))
    return Diagnosis((_model(report), *(check for graph in report.graphs for check in _graph(graph))))


def _model(report: AscendReport) -> Check:
    weights = in_other_dtypes(report.storage, report.dtype)
    sizes = f"weights {format_size(report.weight_bytes)}, caches {format_size(report.cache_bytes)} on one device"
    where = f"{report.max_length} tokens x batch {report.batch}"
    return passed(
        "Ascend model",
        f"{report.architecture}, {report.layers} layers in {report.dtype}{weights}: {sizes} for {where};"
        f"{_decoded(report)} {NOT_MEASURED}",
    )


def _decoded(report: AscendReport) -> str:
    if report.decoded == 0:
        return ""
    return f" {report.decoded} packed matrices are decoded when loaded (docs/ascend.md says what stays packed);"


def _graph(graph: AscendGraph) -> list[Check]:
    name = f"{graph.name} graph"
    parts = passed(name, "; ".join(map(str, graph.parts)))
    return [parts, *(failed(name, problem, _REPORT) for problem in graph.problems)]
