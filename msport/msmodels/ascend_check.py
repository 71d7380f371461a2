"""Checks on any machine whether a model's Ascend graphs pass MindSpore's front end, and which of their parts are fused.

It does not check kernels. Only an NPU can show that an operator computes what its documentation says, on a certain chip
and CANN version (``make ascend-acceptance``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msport.architectures import ARCHITECTURES, Role, load_config
from msport.arguments import require_counts
from msport.child import call_in_child
from msport.device import PACKED
from msport.errors import UsageError
from msport.sizing.costs import PREFILL_CHUNK, Costs
from msport.sizing.fit import only_portable
from msport.sizing.kept import expected_encodings, is_packed, kept_encodings, packed_names

DTYPES = ("bfloat16", "float16")
SCHEMA = "msport.ascend/1"

_NORMS = ("norm.weight", "layernorm.weight")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a graph: its fused operators, in how many places they were found, and in how many they are wanted.

    A part without fused operators is composed of plain ones.
    """

    name: str
    operators: tuple[str, ...]
    found: int
    wanted: int

    @property
    def is_fused(self) -> bool:
        """Whether all places of the part use a fused operator, some perhaps for a few experts at a time."""
        return self.found >= self.wanted

    def __str__(self) -> str:
        if self.is_fused:
            return f"{self.name}: {' + '.join(self.operators)} x {self.found}"
        if self.found == 0:
            return f"{self.name}: composed"
        return f"{self.name}: fused in {self.found} of {self.wanted} places"


@dataclass(frozen=True, slots=True)
class AscendGraph:
    """One graph: its parts, the number of each operator in it, and its problems."""

    name: str
    parts: tuple[Part, ...]
    operators: Mapping[str, int]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AscendReport:
    """The result of `check_ascend`. Bytes are for one device; caches are for `batch` sequences. `storage` names the
    encodings of the matrices, `packed` says whether any of them is packed. `decoded` packed matrices of the folder do
    not stay packed, because no operator takes them.
    """

    architecture: str
    dtype: str
    packed: bool
    layers: int
    max_length: int
    batch: int
    weight_bytes: int
    cache_bytes: int
    graphs: tuple[AscendGraph, ...]
    storage: tuple[str, ...]
    decoded: int

    @property
    def passed(self) -> bool:
        """Whether no graph has a problem."""
        return not any(graph.problems for graph in self.graphs)

    def to_document(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {"schema": SCHEMA, "passed": self.passed, **asdict(self)}


def check_ascend(
    folder: str | Path,
    dtype: str | None = None,
    max_length: int = 4096,
    batch_size: int = 1,
    prefill_chunk: int = PREFILL_CHUNK,
    timeout: float | None = None,
) -> AscendReport:
    """Builds the Ascend graphs of the model whose config.json is in `folder`, converted or not; reads no weights.

    `dtype` is bfloat16, float16 or ``"mxfp4"`` (bfloat16, with experts that stay packed even if the folder holds no
    checkpoint); None: bfloat16. Weights lie as in the folder's checkpoint, if it holds one. Raises `UnsupportedError`
    if MindSpore's inference rejects a graph, `ConfigError`, `UsageError`, and `ChildError` if the process that builds
    the graphs crashes.
    """
    folder = Path(folder)
    config = load_config(folder)
    packed = dtype == PACKED
    dtype = "bfloat16" if dtype is None or packed else dtype
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is not one of {', '.join((*DTYPES, PACKED))}, which Ascend's operators take")
    require_counts(max_length=max_length, batch_size=batch_size, prefill_chunk=prefill_chunk)
    max_length = min(max_length, config.max_position_embeddings)
    chunk = min(prefill_chunk, max_length)
    stored = expected_encodings(folder, config, packed=packed)
    if packed and not packed_names(stored):
        raise UsageError(f"{folder}: {config.architecture} has no experts that could stay packed as MXFP4")
    operators = "portable" if only_portable(on_device=True) else "ascend"
    costs = Costs(config, dtype, kept_encodings(config, stored, dtype, operators))
    built = call_in_child(
        "msport.msmodels.mindir:build_graphs",
        {
            "folder": str(folder.resolve()),
            "dtype": dtype,
            "packed": packed,
            "max_length": max_length,
            "batch": batch_size,
            "chunk": chunk,
        },
        task="building the Ascend graphs",
        timeout=timeout,
    )
    return AscendReport(
        config.architecture,
        dtype,
        bool(packed_names(costs.kept)),
        config.num_hidden_layers,
        max_length,
        batch_size,
        costs.weight_bytes,
        costs.cache_bytes(max_length, batch_size, chunk),
        tuple(_examine(name, graph, costs, batch_size) for name, graph in built["graphs"].items()),
        costs.storage,
        sum(is_packed(encoding) and name not in costs.kept for name, encoding in stored.items()),
    )


def _examine(name: str, graph: Mapping[str, Any], costs: Costs, batch: int) -> AscendGraph:
    counts = Counter(operator["name"] for operator in graph["operators"])
    problems = (
        *_wrong_parameters(graph["parameters"], costs),
        *_wrong_dtypes(graph["operators"], costs.dtype),
        *_wrong_output(graph["operators"], [batch, costs.config.vocab_size]),
    )
    return AscendGraph(name, tuple(_parts(counts, costs)), dict(counts), problems)


def _parts(counts: Mapping[str, int], costs: Costs) -> list[Part]:
    config, layers = costs.config, costs.config.num_hidden_layers
    rows = ARCHITECTURES[config.architecture].weights(config)
    norms = sum(row.name.endswith(_NORMS) for row in rows)
    sparse = sum(row.role is Role.EXPERTS for row in rows) // 2
    quantised = sum(row.role is not Role.EXPERTS and is_packed(costs.encoding(row)) for row in rows)

    def part(name: str, wanted: int, *operators: str) -> Part:
        present = tuple(operator for operator in operators if counts.get(operator))
        return Part(name, present, sum(counts.get(operator, 0) for operator in operators), wanted)

    parts = [
        part("attention", layers, "FlashAttentionScore", "FusedInferAttentionScore"),
        part("cache update", 2 * layers, "InplaceIndexCopy"),
        part("RMSNorm", norms, "RmsNorm", "AddRmsNorm"),
        part("RoPE", 2 * layers, "RotaryPositionEmbedding"),
    ]
    if quantised:
        parts.append(part("quantised layers", quantised, "WeightQuantBatchMatmul"))
    if sparse:
        parts += [
            part("expert router", sparse, "MoeGatingTopKSoftmax"),
            part("expert sorting", sparse, "MoeInitRoutingV2"),
            part("expert products", 2 * sparse, "GroupedMatmulV4"),
            part("expert activation", sparse, "Swiglu"),
            part("expert sum", sparse, "MoeTokenUnpermute", "InnerMoeTokenUnpermute"),
        ]
    return parts


def _wrong_parameters(found: list[dict[str, Any]], costs: Costs) -> list[str]:
    """The differences between the graph's weights and those of a checkpoint of the family."""
    in_graph = {each["name"]: (each["dtype"], tuple(each["shape"])) for each in found}
    expected = {
        part.name: (part.dtype.name, part.shape)
        for row in ARCHITECTURES[costs.config.architecture].weights(costs.config)
        for part in costs.encoding(row).parts(row.name, row.matrix)
    }
    return [
        f"parameter {name} is {in_graph.get(name, 'not in the graph')}, a checkpoint holds {wanted}"
        for name, wanted in expected.items()
        if in_graph.get(name) != wanted
    ]


def _wrong_dtypes(operators: list[dict[str, Any]], dtype: str) -> list[str]:
    """Matrix products, attention and norms in a dtype other than the model's, and anything in float64."""
    heavy = ("MatMul", "BatchMatMul", "WeightQuantBatchMatmul", "GroupedMatmulV4", "FusedInferAttentionScore")
    problems = []
    for operator in operators:
        dtypes = [output["dtype"] for output in operator["outputs"]]
        if "float64" in dtypes or (operator["name"] in heavy and dtypes[:1] != [dtype]):
            problems.append(f"{operator['scope']} computes in {', '.join(dtypes)}")
    return problems


def _wrong_output(operators: list[dict[str, Any]], shape: list[int]) -> list[str]:
    wanted = [{"dtype": "float32", "shape": shape}]
    last = operators[-1]["outputs"] if operators else []
    return [] if last == wanted else [f"the graph's output is {last}, not {wanted}"]
