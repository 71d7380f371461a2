"""Ascend's fused operators, for the 910B and later, with the names and definitions of ``ops.portable``.

This code was never run on an NPU. These checks ran without one: MindSpore's front end accepts the graphs of every
family (``msport doctor --ascend``); and if each operator is replaced by its documented meaning, the code around it
gives the same result as the portable form. See ``docs/ascend.md``.

The 910A has no fused attention and no grouped matrix product (CANN's documents list them for Atlas A2 and later), so
`ops.bind` gives it the portable operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms

from msport.msmodels.ops import portable
from msport.msmodels.ops.ascend import attention, operators


def fused(dtype: ms.Type) -> Mapping[str, Callable[..., Any]]:
    """The operators of this folder, by name; each handles `dtype` itself."""
    found = {**vars(operators), **vars(attention)}
    return {name: found[name] for name in portable.__all__ if name in found}
