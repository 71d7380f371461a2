"""``msport inspect``."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click

from msport.checkpoint import TensorInfo
from msport.cli.completion import files
from msport.cli.parameters import refuse_given
from msport.cli.progress import bytes_on_stderr
from msport.cli.tensor_patterns import summarise
from msport.convert import Inspection, inspect_path, verify_folder
from msport.errors import name_in_text
from msport.report.formatting import counted
from msport.report.table import columns
from msport.sizing.units import format_size

EXAMPLES = """\b
Examples:
  msport inspect gpt-oss-20b-ms
  msport inspect ./gpt-oss-20b --tensors
  msport inspect model-00001-of-00003.safetensors --json
  msport inspect gpt-oss-20b-ms --verify
"""

# A model has some twenty, and a path at most 4096 bytes.
_MAX_PATTERNS = 500
_MAX_PATH = 4096


@click.command(epilog=EXAMPLES)
@click.argument("path", shell_complete=files)
@click.option("--tensors", "every_tensor", is_flag=True, help="List every tensor instead of one row per pattern.")
@click.option(
    "--verify", is_flag=True, help="Also read all bytes of a converted folder and check each tensor's SHA-256."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def command(path: str, every_tensor: bool, verify: bool, as_json: bool) -> None:
    """Show what PATH holds: a folder in the Hub's layout, a converted folder, or one .safetensors or .ckpt file.

    Reads only headers, unless --verify is given.
    """
    if as_json:
        refuse_given("--json lists every tensor", "every_tensor")
    inspection = inspect_path(path)
    if verify:
        with bytes_on_stderr(as_json) as progress:
            verify_folder(path, progress)
    if as_json:
        click.echo(json.dumps({**_document(inspection), "verified": verify}, indent=2))
    else:
        click.echo("\n".join(_text(inspection, every_tensor)) + ("\nverified: every tensor matches" if verify else ""))


def _text(inspection: Inspection, every_tensor: bool) -> list[str]:
    tensors = list(inspection.tensors.values())
    lines = [f"{inspection.path}: {_kind(inspection)}", *columns(_facts(inspection), "<<"), ""]
    rows = _tensor_rows(inspection, tensors) if every_tensor else _pattern_rows(tensors)
    return lines + list(columns(rows, "<<>" if every_tensor else "><<>"))


def _kind(inspection: Inspection) -> str:
    if inspection.manifest:
        return f"converted by msport {name_in_text(inspection.manifest.msport_version)}"
    return "Hub checkpoint" if inspection.path.is_dir() else "single file"


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    dtypes = Counter(tensor.dtype.name for tensor in inspection.tensors.values())
    files = counted(len(set(inspection.files.values())), "file")
    facts = [
        ("architecture", name_in_text(inspection.architecture or "unknown: no config.json")),
        ("parameters", f"{inspection.parameters:,}"),
        ("tensors", f"{len(inspection.tensors)} in {files}, {format_size(inspection.nbytes)}"),
        ("dtypes", ", ".join(f"{count} {name}" for name, count in dtypes.most_common())),
    ]
    if inspection.manifest:
        revision = f" at {name_in_text(inspection.manifest.revision)}" if inspection.manifest.revision else ""
        facts.append(("source", name_in_text(inspection.manifest.source, _MAX_PATH) + revision))
    if inspection.path.is_dir():
        facts.append(("supported", f"no: {inspection.problem}" if inspection.problem else "yes"))
    return facts


def _pattern_rows(tensors: list[TensorInfo]) -> list[tuple[str, ...]]:
    patterns = summarise(tensors)
    rows: list[tuple[str, ...]] = [
        (
            str(pattern.count),
            name_in_text(pattern.name),
            f"{pattern.dtype.name} {list(pattern.shape)}",
            format_size(pattern.nbytes),
        )
        for pattern in patterns[:_MAX_PATTERNS]
    ]
    if len(patterns) > _MAX_PATTERNS:
        rows.append(("...", f"and {len(patterns) - _MAX_PATTERNS} more: --tensors lists them", "", ""))
    return rows


def _tensor_rows(inspection: Inspection, tensors: list[TensorInfo]) -> list[tuple[str, ...]]:
    return [
        (name_in_text(tensor.name), f"{tensor.dtype.name} {list(tensor.shape)}", format_size(tensor.nbytes))
        for tensor in tensors
    ]


def _document(inspection: Inspection) -> dict[str, Any]:
    manifest = inspection.manifest
    return {
        "path": str(inspection.path),
        "architecture": inspection.architecture,
        "supported": inspection.problem is None if inspection.path.is_dir() else None,
        "problem": inspection.problem,
        "parameters": inspection.parameters,
        "nbytes": inspection.nbytes,
        "source": manifest and manifest.source,
        "revision": manifest and manifest.revision,
        "tensors": [
            {
                "name": tensor.name,
                "dtype": tensor.dtype.name,
                "shape": tensor.shape,
                "nbytes": tensor.nbytes,
                "file": inspection.files[tensor.name].name,
                "extents": tensor.extents,
            }
            for tensor in inspection.tensors.values()
        ],
    }
