"""Which operators a graph is built from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import mindspore as ms
import pytest

from msport.errors import UsageError
from msport.msmodels import chips, ops
from msport.msmodels.ops import ascend, cpu, portable

needs_kernels = pytest.mark.skipif(not cpu._NATIVE, reason="no C++ compiler on this machine")


@pytest.fixture(autouse=True)
def _bind_again() -> Iterator[None]:
    yield
    ops.bind("CPU", ms.float32)


@needs_kernels
def test_a_cpu_gets_its_fused_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    assert ops.bind("CPU", ms.float32) == "cpu"
    assert ops.attention is cpu.attention


@needs_kernels
def test_a_model_of_another_dtype_keeps_the_one_kernel_that_takes_its_float32_logits() -> None:
    ops.use("cpu", ms.float16)
    others = set(portable.__all__) - {"soft_cap"}
    assert all(getattr(ops, name) is getattr(portable, name) for name in others)
    assert ops.soft_cap is cpu.soft_cap


def test_without_kernels_every_operator_is_portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "_NATIVE", False)
    assert ops.bind("CPU", ms.float32) == "cpu"
    assert all(getattr(ops, name) is getattr(portable, name) for name in portable.__all__)


def test_an_unknown_device_gets_the_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    assert ops.bind("GPU", ms.float32) == "portable"
    assert ops.attention is portable.attention


@pytest.mark.parametrize("soc", ["ascend910b", "ascend910_93", ""])
def test_an_ascend_chip_gets_its_fused_operators(soc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    monkeypatch.setattr(chips, "soc_version", lambda: soc)
    assert ops.bind("Ascend", ms.bfloat16) == "ascend"
    assert ops.attention is ascend.attention.attention


@pytest.mark.parametrize("soc", ["ascend910", "Ascend910A", "ascend310p"])
def test_a_chip_without_fused_operators_gets_the_definitions(soc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    monkeypatch.setattr(chips, "soc_version", lambda: soc)
    assert ops.bind("Ascend", ms.bfloat16) == "portable"


def test_the_environment_overrides_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_OPS", "portable")
    assert ops.bind("CPU", ms.float32) == "portable"


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_OPS", "fast")
    with pytest.raises(UsageError, match="choose one of: portable, cpu, ascend"):
        ops.bind("CPU", ms.float32)


@needs_kernels
def test_a_fused_operator_has_the_signature_of_its_definition() -> None:
    for implementation, dtype in ((cpu, ms.float32), (ascend, ms.bfloat16)):
        fused = implementation.fused(dtype)
        assert {"attention", "experts", "rms_norm"} <= set(fused) <= set(portable.__all__)
        for name, function in fused.items():
            expected = list(inspect.signature(getattr(portable, name)).parameters)
            found = list(inspect.signature(function).parameters)
            assert found == expected, f"{implementation.__name__}.{name}"
