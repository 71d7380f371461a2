"""What ``npu-smi`` prints becomes bytes; a machine without it, or with another one's output, tells nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from msport.bench.measure.loop import Array
from msport.bench.measure.msport_engine import Synchronised
from msport.bench.measure.npu import Card, logic_number, read_card
from msport.bench.measure.typed_json import parse
from msport.sizing.process import DeviceMemory, Memory, read_memory

# As in the documents of Atlas 800I A2; %s is the process of the test.
USAGES = """\
\tNPU ID                         : 3
\tChip Count                     : 1

\tHBM Capacity(MB)               : 65536
\tHBM Usage Rate(%)              : 25
\tAicore Usage Rate(%)           : 71
"""
# As on an 8-card Atlas 800T A2, and with two chips a card: card, chip, logic number, name.
ONE_CHIP = """\
\tNPU ID                         Chip ID                        Chip Logic ID                  Chip Name
\t3                              0                              3                              Ascend 910B3
\t3                              1                              -                              Mcu
"""
TWO_CHIPS = ONE_CHIP.replace("  3   ", "  6   ") + "\t1                              1        3        Ascend910\n"
PROCESSES = """\
\tNPU ID                         : 3
\tProcess id:41 Process name:python            Process memory(MB):177
\tProcess id:4 Process name:python             Process memory(MB):900
"""


def _tool(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = folder / "npu-smi"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_capacity_use_and_the_processes_own_memory_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usages").write_text(USAGES)
    (tmp_path / "proc-mem").write_text(PROCESSES)
    _tool(tmp_path, f'[ "$1 $2 $4 $5" = "info -t -i 3" ] && cat "{tmp_path}/$3"', monkeypatch)
    assert read_card(3, process=41) == Card(65536 << 20, (65536 << 20) // 4, 177 << 20)
    assert read_card(3, process=5).process is None


@pytest.mark.parametrize(("table", "place"), [(ONE_CHIP, "-i 3 -c 0"), (TWO_CHIPS, "-i 1 -c 1")])
def test_a_chip_is_asked_for_by_its_card_and_its_place_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str, place: str
) -> None:
    (tmp_path / "table").write_text(table)
    (tmp_path / "usages").write_text(USAGES)
    script = (
        f'if [ "$2" = -m ]; then cat "{tmp_path}/table"; else [ "$4 $5 $6 $7" = "{place}" ] && cat "{tmp_path}/$3"; fi'
    )
    _tool(tmp_path, script, monkeypatch)
    assert read_card(3, process=1).total == 65536 << 20


def test_the_first_visible_npu_is_not_the_machines_first() -> None:
    assert logic_number(1, {"ASCEND_RT_VISIBLE_DEVICES": "6,3"}) == 3
    assert logic_number(1, {"ASCEND_RT_VISIBLE_DEVICES": ""}) == 1
    assert logic_number(1, {}) == 1


@pytest.mark.parametrize("body", ["exit 1", "echo 'no such command'", "echo 'HBM Capacity(MB) : unknown'"])
def test_a_tool_that_fails_or_prints_something_else_gives_no_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    _tool(tmp_path, body, monkeypatch)
    assert read_card(0, process=1) == Card()


def test_without_the_tool_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_card(0, process=1) == Card()


def test_device_memory_survives_the_document() -> None:
    memory = read_memory(DeviceMemory(10, 20, 30))
    assert parse(Memory, asdict(memory)) == memory


def test_a_call_on_a_device_ends_when_the_device_is_idle() -> None:
    calls: list[str] = []

    class Engine:
        def prefill(self, ids: Array) -> Array:
            calls.append("prefill")
            return ids

        def decode(self, tokens: Array) -> Array:
            calls.append("decode")
            return tokens

    engine = Synchronised(Engine(), lambda: calls.append("synchronise"))
    engine.prefill(None)  # type: ignore[arg-type]
    engine.decode(None)  # type: ignore[arg-type]
    assert calls == ["prefill", "synchronise", "decode", "synchronise"]
