"""Which operators a graph is built from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from msport.errors import UsageError
from msport.msmodels import chips, ops
from msport.msmodels.ops import ascend, cpu, portable


@pytest.fixture(autouse=True)
def _bind_again() -> Iterator[None]:
    yield
    ops.bind("CPU")


def test_a_cpu_gets_its_fused_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    assert ops.bind("CPU") == "cpu"
    assert ops.attention is cpu.attention


def test_an_unknown_device_gets_the_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    assert ops.bind("GPU") == "portable"
    assert ops.attention is portable.attention


@pytest.mark.parametrize("soc", ["ascend910b", "ascend910_93", ""])
def test_an_ascend_chip_gets_its_fused_operators(soc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    monkeypatch.setattr(chips, "soc_version", lambda: soc)
    assert ops.bind("Ascend") == "ascend"
    assert ops.attention is ascend.attention


@pytest.mark.parametrize("soc", ["ascend910", "Ascend910A", "ascend310p"])
def test_a_chip_without_fused_operators_gets_the_definitions(soc: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSPORT_OPS", raising=False)
    monkeypatch.setattr(chips, "soc_version", lambda: soc)
    assert ops.bind("Ascend") == "portable"


def test_the_environment_overrides_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_OPS", "portable")
    assert ops.bind("CPU") == "portable"


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_OPS", "fast")
    with pytest.raises(UsageError, match="choose one of: portable, cpu, ascend"):
        ops.bind("CPU")


def test_every_implementation_has_every_operator_under_the_same_signature() -> None:
    import inspect

    for name in ops.__all__:
        expected = list(inspect.signature(getattr(portable, name)).parameters)
        for implementation in (cpu, ascend):
            found = list(inspect.signature(getattr(implementation, name)).parameters)
            assert found == expected, f"{implementation.__name__}.{name}"
