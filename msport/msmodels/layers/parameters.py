"""Parameters with values from a checkpoint, and parameters that belong to a graph."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.common import np_dtype
from mindspore.common.initializer import initializer

from msport.checkpoint.dtypes import Array

_STORAGE = {ms.float32: np.float32, ms.float16: np.float16, ms.bfloat16: np_dtype.bfloat16}
_INTERLEAVED = "interleaved_axis"


def weight(*shape: int, dtype: ms.Type, name: str | None = None, interleaved: int | None = None) -> Parameter:
    """A parameter of `shape` that a checkpoint fills. Until then it takes no memory (see ``loading``).

    `name` None: that of the attribute to which it is assigned. `interleaved` is the axis along which gate and up
    projections alternate; loading applies ``ops.arrange_gate_up`` to it.
    """
    values = initializer("zeros", shape, dtype)
    parameter = Parameter(values, requires_grad=False) if name is None else Parameter(values, name, requires_grad=False)
    if interleaved is not None:
        setattr(parameter, _INTERLEAVED, interleaved)
    return parameter


def interleaved_axis(parameter: Parameter) -> int | None:
    """The interleaved axis that was given to `weight`, or None."""
    axis: int | None = getattr(parameter, _INTERLEAVED, None)
    return axis


def zeros(*shape: int, dtype: ms.Type) -> Parameter:
    """A parameter that belongs to the graph and starts as zeros, for a cache."""
    return Parameter(Tensor(np.zeros(shape, _STORAGE[dtype])), requires_grad=False)


def constant(values: Array) -> Parameter:
    """A parameter that belongs to the graph and never changes, for a table computed from the config."""
    return Parameter(Tensor(values), requires_grad=False)
