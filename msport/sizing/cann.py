"""Which int4 and int8 matrices CANN's products take, and what becomes of the others on Ascend.

Sources: CANN's documents of aclnnWeightQuantBatchMatmulV2 (linear layers) and aclnnGroupedMatmulV4 (experts) for Atlas
A2 and A3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msport.architectures.tensors import Role, Weight
from msport.encodings import Encoding, Grouped, Plain, Shape, Transposed

# Both operators compute in these, and take no other scales than those of the activations' dtype.
DTYPES = ("bfloat16", "float16")
_MOST = 65535
_MOST_EXPERTS = 1024


def arranged(weights: Sequence[Weight], kept: Mapping[str, Encoding], dtype: str) -> dict[str, Encoding]:
    """`kept` as Ascend's operators keep it: what CANN's products take is `Transposed`.

    Another linear layer, and an embedding, is missing in the result: it is decoded when it is loaded. Experts of which
    CANN does not take all stay as they lie, and the graph decodes those that it needs.
    """
    rows = [row for row in weights if row.name in kept]
    experts = [(kept[row.name], row.matrix) for row in rows if row.role is Role.EXPERTS]
    fused = all(
        isinstance(form, Plain) or (isinstance(form, Grouped) and takes_experts(form, shape, dtype))
        for form, shape in experts
    )
    result = dict(kept)
    for row in rows:
        form = kept[row.name]
        if not isinstance(form, Grouped):
            continue
        if row.role is Role.EXPERTS:
            result[row.name] = Transposed(form) if fused else form
        elif row.role is not Role.EMBEDDING and takes_linear(form, row.matrix, dtype):
            result[row.name] = Transposed(form)
        else:
            del result[row.name]
    return result


def takes_linear(encoding: Grouped, shape: Shape, dtype: str) -> bool:
    """Whether WeightQuantBatchMatmul takes a matrix of `shape` ``[outputs, inputs]`` for activations in `dtype`."""
    return _fits(encoding, shape, dtype)


def takes_experts(encoding: Grouped, shape: Shape, dtype: str) -> bool:
    """Whether GroupedMatmulV4 takes ``[experts, outputs, inputs]``: groups only for symmetric int4, else one scale per
    output.
    """
    grouped = encoding.group < shape[-1]
    symmetric_int4 = encoding.bits == 4 and not encoding.offsets
    return (
        _fits(encoding, shape, dtype)
        and not encoding.order
        and shape[0] <= _MOST_EXPERTS
        and (symmetric_int4 or not grouped)
    )


def _fits(encoding: Grouped, shape: Shape, dtype: str) -> bool:
    *_, outputs, inputs = shape
    paired = encoding.bits == 8 or outputs % 2 == 0
    return dtype in DTYPES and encoding.scale_dtype.name == dtype and paired and max(outputs, inputs) <= _MOST
