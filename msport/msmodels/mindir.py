"""Builds a model's Ascend graphs with MindSpore's front end, on any machine.

``mindspore.export`` parses a network and infers types and shapes by each operator's own rules, but selects no kernels.
So a CPU can build, reject and read back a graph of operators that only an NPU has. Weights are neither read nor
allocated. This runs in a child process (see `ascend_check`), because it changes MindSpore's context and the current
folder.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore.train import mind_ir_pb2

from msport.architectures import load_config
from msport.errors import UnsupportedError
from msport.msmodels import ops
from msport.msmodels.computation import DTYPES
from msport.msmodels.layers.cache import CacheShape
from msport.msmodels.layers.decoder import CausalLM
from msport.msmodels.network import build_network
from msport.progress import Progress, Step
from msport.sizing.kept import expected_encodings, kept_encodings

# MindIR's codes of element types, and our names.
_ELEMENT_TYPES = {
    "FLOAT": "float32",
    "FLOAT16": "float16",
    "BFLOAT16": "bfloat16",
    "DOUBLE": "float64",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

Document = dict[str, Any]


def build_graphs(
    folder: str, dtype: str, packed: bool, max_length: int, batch: int, chunk: int, *, progress: Progress
) -> Document:
    """The prefill and decode graphs of the config in `folder`, as JSON; see `_describe`.

    `packed`: as `expected_encodings`. Raises `UnsupportedError` if MindSpore rejects a graph, and `ConfigError`.
    """
    config = load_config(Path(folder))
    stored = expected_encodings(Path(folder), config, packed=packed)
    cache = CacheShape(batch, max_length, chunk, DTYPES[dtype])
    ms.set_context(mode=ms.GRAPH_MODE, jit_syntax_level=ms.STRICT)
    operators = ops.bind("Ascend", cache.dtype)
    network = build_network(config, cache, kept_encodings(config, stored, dtype, operators))
    graphs = {}
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # MindSpore writes its analysis of a rejected graph to the current folder
        for number, (name, seq) in enumerate((("prefill", chunk), ("decode", 1))):
            progress(Step(name, number, 2))
            graphs[name] = _export(network, batch, seq, name, dtype)
        os.chdir("/")
    return {"operators": operators, "graphs": graphs}


def _export(network: CausalLM, batch: int, seq: int, name: str, dtype: str) -> Document:
    parameters: list[Document] = []

    def take_parameters(model: Any) -> None:
        # The file is read without the payload of weights, so their size does not matter.
        for parameter in model.graph.parameter:
            _, _, parameter_name = parameter.name.rpartition(":")
            parameters.append({"name": parameter_name, **_tensor(parameter)})
        del model.graph.parameter[:]

    ids = Tensor(np.zeros((batch, seq), np.int32))
    one_each = Tensor(np.zeros(batch, np.int32))
    try:
        ms.export(network, ids, one_each, one_each, file_name=name, file_format="MINDIR", custom_func=take_parameters)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UnsupportedError(
            f"MindSpore {ms.__version__} rejects the Ascend {name} graph in {dtype}: {reason};"
            " run with MSPORT_OPS=portable to do without fused operators, and report it"
        ) from None
    model = mind_ir_pb2.ModelProto()
    model.ParseFromString(Path(f"{name}.mindir").read_bytes())
    return _describe(model, parameters)


def _describe(model: Any, parameters: list[Document]) -> Document:
    """Every operator with its place and the dtypes and shapes of its outputs, every parameter, and the output."""
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    operators = [
        {"name": _operator(node.op_type), "scope": node.domain, "outputs": _outputs(node)}
        for node in nodes
        if node.op_type.startswith("REF::")
    ]
    return {"operators": operators, "parameters": parameters}


def _operator(op_type: str) -> str:
    """``REF::RmsNorm:9`` is the ninth primitive of the file, an RmsNorm."""
    return str(op_type.split(":")[2])


def _outputs(node: Any) -> list[Document]:
    for attribute in node.attribute:
        if attribute.name == "shape":
            tensors = [*attribute.tensors, *(tensor for value in attribute.values for tensor in value.tensors)]
            return [_tensor(tensor) for tensor in tensors]
    return []


def _tensor(tensor: Any) -> Document:
    name = mind_ir_pb2.TensorProto.DataType.Name(tensor.data_type)
    return {"dtype": _ELEMENT_TYPES.get(name, name.lower()), "shape": list(tensor.dims)}
