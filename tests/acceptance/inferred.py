"""`operators` without an NPU: every graph is inferred by MindSpore's front end, and the contracts give its outputs."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from acceptance import contracts, operators
from msport.msmodels.ops.ascend import signatures
from msport.progress import Progress


def operator_errors(dtype: str, *, progress: Progress) -> dict[str, Any]:
    """As ``operators.operator_errors``; runs in a child."""
    call, cache = operators.Call, operators.Cache

    class InferredCall:
        def __init__(self, function: Any, *constants: Any) -> None:
            self.name = next(name for name, value in vars(signatures).items() if value is function)
            self.cell, self.constants = call(function, *constants), constants

        def __call__(self, *tensors: Tensor) -> Any:
            ms.export(self.cell, *tensors, file_name="operator", file_format="MINDIR")
            outputs = getattr(contracts, self.name)(*map(_host, tensors), *self.constants)
            return tuple(map(_device, outputs)) if isinstance(outputs, tuple) else _device(outputs)

    class InferredCache:
        def __init__(self, *given: Any) -> None:
            self.cell = cache(*given)

        def __call__(self, slots: Tensor, values: Tensor) -> None:
            ms.export(self.cell, slots, values, file_name="operator", file_format="MINDIR")
            written = np.zeros(self.cell.rows.shape)
            self.rows = _device(contracts.index_copy(written, slots.asnumpy(), _host(values)))

    operators.Call, operators.Cache = InferredCall, InferredCache  # type: ignore[misc, assignment]
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        found = operators.operator_errors(dtype, progress=progress)
        os.chdir("/")
    return found


def _host(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.asnumpy()
    if tensor.dtype == ms.qint4x2:
        return array.view(np.uint8)
    return array if array.dtype.kind in "bi" else array.astype(np.float64)


def _device(array: np.ndarray) -> Tensor:
    return Tensor(array.astype(np.int32 if array.dtype.kind == "i" else np.float32))
