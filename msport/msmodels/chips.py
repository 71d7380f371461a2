"""Generations of Ascend chips: which have bfloat16 and the fused operators."""

from __future__ import annotations

import re

# As MindSpore names them: "ascend910" is the 910A, "ascend910b" the 910B (Atlas A2), "ascend910_93" the 910C (Atlas
# A3). CANN's documents list fused attention, grouped matrix products and bfloat16 for Atlas A2 and later.
_FIRST_GENERATION = re.compile(r"(ascend)?(910|910a|910pro\w*|910premium\w*|310\w*)", re.IGNORECASE)


def soc_version() -> str:
    """MindSpore's name of the chip in use; empty if there is none or MindSpore does not tell."""
    try:
        from mindspore._c_expression import MSContext

        return str(MSContext.get_instance().get_ascend_soc_version())
    except (ImportError, AttributeError, RuntimeError):
        return ""


def has_fused_operators(soc: str) -> bool:
    """Whether a chip has the operators of ``ops.ascend``. An unknown chip is assumed to be newer."""
    return _FIRST_GENERATION.fullmatch(soc) is None


def has_bfloat16(soc: str) -> bool:
    """Whether a chip supports bfloat16."""
    return has_fused_operators(soc)
