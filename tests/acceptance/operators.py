"""Each fused operator on the device against what its documents promise (``contracts``)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.common import np_dtype

from acceptance import contracts
from msport.msmodels.ops.ascend import signatures
from msport.progress import Progress, Step

_NUMPY = {"bfloat16": np_dtype.bfloat16, "float16": np.float16}
Arrays = dict[str, np.ndarray]


def operator_errors(dtype: str, *, progress: Progress) -> dict[str, Any]:
    """Relative L2 error of every operator's outputs in `dtype`, or what it raised; runs in a child."""
    ms.set_context(mode=ms.GRAPH_MODE)
    found: dict[str, Any] = {}
    for number, (name, case) in enumerate(_CASES.items()):
        progress(Step("operators", number, len(_CASES)))
        try:
            found[name] = case(dtype)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
    return found


class Call(nn.Cell):
    """One of `signatures` with its constants, compiled."""

    def __init__(self, function: Callable[..., Any], *constants: Any) -> None:
        super().__init__()
        self.function = function
        self.constants = constants

    def construct(self, *tensors: Tensor) -> Any:
        return self.function(*tensors, *self.constants)


class Cache(nn.Cell):
    """InplaceIndexCopy writes a parameter, which must belong to a cell."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        super().__init__()
        self.rows = Parameter(Tensor(np.zeros(shape, dtype)), requires_grad=False)

    def construct(self, slots: Tensor, values: Tensor) -> Tensor:
        return signatures.index_copy(self.rows, slots, values)


def _random(*shape: int, seed: int, dtype: str) -> np.ndarray:
    """Values that `dtype` holds exactly."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return values.astype(_NUMPY[dtype]).astype(np.float64) if dtype in _NUMPY else values.astype(np.float64)


def _tensor(array: np.ndarray, dtype: str) -> Tensor:
    if array.dtype == np.uint8:  # pairs of int4
        pairs = Tensor(array.view(np.int8))
        pairs.set_dtype(ms.qint4x2)
        return pairs
    kind = _NUMPY.get(dtype, np.float32) if array.dtype.kind == "f" else array.dtype
    return Tensor(array.astype(kind))


def _compare(name: str, dtype: str, arrays: list[np.ndarray], *constants: Any, wide: tuple[int, ...] = ()) -> float:
    """The largest relative error of the outputs; `wide` are the arguments that stay float32."""
    tensors = [_tensor(a, "float32" if i in wide else dtype) for i, a in enumerate(arrays)]
    outputs = Call(getattr(signatures, name), *constants)(*tensors)
    expected = getattr(contracts, name)(*arrays, *constants)
    pairs = zip(_tuple(outputs), _tuple(expected), strict=True)
    return max(_error(np.asarray(right), out.astype(ms.float32).asnumpy()) for out, right in pairs)


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _error(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-30))


def _norms(dtype: str) -> float:
    x, weight = _random(7, 256, seed=0, dtype=dtype), _random(256, seed=1, dtype=dtype)
    return _compare("rms_norm", dtype, [x, weight], 1e-5)


def _add_norms(dtype: str) -> float:
    x, residual = _random(7, 256, seed=0, dtype=dtype), _random(7, 256, seed=1, dtype=dtype)
    return _compare("add_rms_norm", dtype, [x, residual, _random(256, seed=2, dtype=dtype)], 1e-5)


def _rotary(dtype: str) -> float:
    x = _random(2, 5, 8, 64, seed=0, dtype=dtype)
    angles = np.tile(np.random.default_rng(1).uniform(-3, 3, (2, 5, 1, 32)), 2)
    cos, sin = (_rounded(1.35 * table, dtype) for table in (np.cos(angles), np.sin(angles)))
    return _compare("rotary", dtype, [x, cos, sin])


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    return values.astype(np.float32).astype(_NUMPY[dtype]).astype(np.float64)


def _cache(dtype: str) -> float:
    slots = np.random.default_rng(0).permutation(240)[:24].astype(np.int32)
    values = _random(24, 64, seed=1, dtype=dtype)
    cache = Cache((240, 64), _NUMPY[dtype])
    cache(Tensor(slots), _tensor(values, dtype))
    expected = contracts.index_copy(np.zeros((240, 64)), slots, values)
    return _error(expected, cache.rows.astype(ms.float32).asnumpy())


def _attention(seq: int) -> Callable[[str], float]:
    def case(dtype: str) -> float:
        batch, heads, groups, length, head_dim = 2, 8, 2, 96, 64
        query = _random(batch, heads, seq, head_dim, seed=0, dtype=dtype)
        keys, values = (_random(batch, groups, length, head_dim, seed=s, dtype=dtype) for s in (1, 2))
        mask = np.random.default_rng(3).random((batch, 1, seq, length)) < 0.7
        mask[..., 5] = False
        if seq == 1:
            return _compare("incremental_attention", dtype, [query, keys, values, mask], heads, groups, 0.125)
        return _compare("flash_attention", dtype, [query, keys, values, mask], heads, 0.125)

    return case


def _routing(dtype: str) -> float:
    """Only what may be relied on: each token's row where it was said to be, and how many rows each expert has."""
    x, indices = _random(9, 64, seed=0, dtype=dtype), _indices(9, 2, 5)
    outputs = Call(signatures.init_routing, 5)(_tensor(x, dtype), Tensor(indices))
    rows, destinations, counts = (each.asnumpy() if each.dtype == ms.int32 else _host(each) for each in outputs)
    by_expert = np.sort(indices.reshape(-1))
    experts_in_place = np.array_equal(indices.reshape(-1)[np.argsort(destinations)], by_expert)
    if not experts_in_place or not np.array_equal(counts, np.bincount(by_expert, minlength=5)):
        return float("inf")
    return _error(np.repeat(x, 2, 0), rows[destinations])


def _host(tensor: Tensor) -> np.ndarray:
    values: np.ndarray = tensor.astype(ms.float32).asnumpy()
    return values


def _indices(tokens: int, k: int, used: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.stack([rng.permutation(used - 1)[:k] for _ in range(tokens)]).astype(np.int32)  # the last stays empty


def _grouped(dtype: str) -> float:
    counts = np.array([3, 0, 5, 1, 0])  # experts without rows in the middle and at the end
    x, weight = _random(9, 64, seed=0, dtype=dtype), _random(5, 64, 32, seed=1, dtype=dtype)
    bias = _random(5, 32, seed=2, dtype=dtype)
    wide = (2,) if dtype == "bfloat16" else ()
    return _compare("grouped_matmul", dtype, [x, weight, bias, counts], wide=wide)


def _quantised(dtype: str) -> float:
    """int8 and int4, in groups and one scale per output, with offsets and without."""
    errors = []
    for weight, groups in product((_codes(64, 48), _pairs(64, 48)), ((2, 48), (48,))):
        x, scales = _random(9, 64, seed=0, dtype=dtype), _random(*groups, seed=1, dtype=dtype)
        errors.append(_compare("weight_quant_matmul", dtype, [x, weight, scales, _offsets(*groups)]))
        errors.append(_compare("weight_quant_matmul", dtype, [x, weight, scales], None))
    return max(errors)


def _grouped_quantised(dtype: str) -> float:
    """What is documented: int8 with one scale per output, int4 also in groups if it is symmetric."""
    counts = np.array([3, 0, 5, 1, 0])
    x, scales, offsets = _random(9, 64, seed=0, dtype=dtype), _random(5, 48, seed=1, dtype=dtype), _offsets(5, 48)
    groups, bias = _random(5, 2, 48, seed=1, dtype=dtype), _random(5, 48, seed=2, dtype=dtype)
    wide = (5,) if dtype == "bfloat16" else ()
    name = "grouped_weight_quant_matmul"
    return max(
        _compare(name, dtype, [x, _codes(5, 64, 48), counts, scales, offsets, bias], wide=wide),
        _compare(name, dtype, [x, _pairs(5, 64, 48), counts, scales, offsets, bias], wide=wide),
        _compare(name, dtype, [x, _pairs(5, 64, 48), counts, scales], None, None),
        _compare(name, dtype, [x, _pairs(5, 64, 48), counts, groups], None, None),
    )


def _codes(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(-128, 128, shape).astype(np.int8)


def _pairs(*shape: int) -> np.ndarray:
    """Bytes with two int4 each, for a matrix of `shape`."""
    return np.random.default_rng(5).integers(0, 256, (*shape[:-1], shape[-1] // 2), np.uint8)


def _offsets(*shape: int) -> np.ndarray:
    return np.random.default_rng(6).integers(-8, 9, shape).astype(np.float64)


def _unpermute(dtype: str) -> float:
    rows, shares = _random(18, 64, seed=0, dtype=dtype), _random(9, 2, seed=1, dtype=dtype)
    destinations = np.random.default_rng(2).permutation(18).astype(np.int32)
    return _compare("token_unpermute", dtype, [rows, destinations, shares])


def _gating(dtype: str) -> float:
    logits = np.random.default_rng(0).standard_normal((9, 32)).astype(np.float32).astype(np.float64)
    return _compare("gating_top_k_softmax", dtype, [logits], 4, wide=(0,))


def _swiglu(dtype: str) -> float:
    return _compare("swiglu", dtype, [_random(9, 128, seed=0, dtype=dtype)])


_CASES: dict[str, Callable[[str], float]] = {
    "rms_norm": _norms,
    "add_rms_norm": _add_norms,
    "rotary": _rotary,
    "index_copy": _cache,
    "flash_attention": _attention(19),
    "incremental_attention": _attention(1),
    "init_routing": _routing,
    "grouped_matmul": _grouped,
    "grouped_weight_quant_matmul": _grouped_quantised,
    "weight_quant_matmul": _quantised,
    "token_unpermute": _unpermute,
    "gating_top_k_softmax": _gating,
    "swiglu": _swiglu,
}
