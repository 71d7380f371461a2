"""The device's memory is asked for where it has its own, and is unknown where it does not tell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from msport.device import own_memory


def test_an_npu_is_initialised_before_it_is_asked_for_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import mindspore

    done: list[str] = []
    zeros = mindspore.ops.zeros
    monkeypatch.setattr(mindspore.ops, "zeros", lambda *size: done.append("operator") or zeros(*size))

    def properties(number: int, target: str) -> SimpleNamespace:
        return SimpleNamespace(total_memory=64 << 30, free_memory=60 << 30) if done else SimpleNamespace(total_memory=0)

    monkeypatch.setattr(mindspore.hal, "get_device_properties", properties)
    assert own_memory("Ascend") == (64 << 30, 60 << 30)
    assert own_memory("CPU") == (None, None)


def test_a_device_that_says_nothing_of_its_memory_has_an_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import mindspore

    nothing = SimpleNamespace(total_memory=0, free_memory=0)
    monkeypatch.setattr(mindspore.hal, "get_device_properties", lambda number, target: nothing)
    assert own_memory("Ascend") == (None, None)
