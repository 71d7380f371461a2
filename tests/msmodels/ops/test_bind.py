"""Which operators a graph is built from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from msport.errors import UsageError
from msport.msmodels import ops
from msport.msmodels.ops import cpu, portable


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
    assert ops.bind("Ascend") == "portable"
    assert ops.attention is portable.attention


def test_the_environment_overrides_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_OPS", "portable")
    assert ops.bind("CPU") == "portable"


def test_an_unknown_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSPORT_OPS", "fast")
    with pytest.raises(UsageError, match="choose one of: portable, cpu"):
        ops.bind("CPU")


def test_every_implementation_has_every_operator_under_the_same_signature() -> None:
    import inspect

    for name in ops.__all__:
        expected = list(inspect.signature(getattr(portable, name)).parameters)
        assert list(inspect.signature(getattr(cpu, name)).parameters) == expected, name
