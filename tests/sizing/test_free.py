"""What a process may still take: what the machine has available, or what the tightest limit on a container leaves."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from msport.sizing.free import available_memory, free_disk

MACHINE = 10**9


def _belongs(root: Path, *lines: str) -> None:
    """This process is in the groups that `lines` name."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("".join(f"{line}\n" for line in lines))


def _group(root: Path, path: str, usage: int, *, cached: int = 0, **limits: int | str) -> None:
    """A control group of version 2, its `limits` by name: ``max``, ``high``."""
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    for name, limit in limits.items():
        (folder / f"memory.{name}").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{usage}\n")
    (folder / "memory.stat").write_text(f"anon 100000\ninactive_file {cached}\n")


def _old_group(root: Path, path: str, usage: int, limit: int, *, cached: int = 0, inherited: int | None = None) -> None:
    """A control group of version 1; `inherited` is the tightest limit of all above it."""
    folder = root / "sys/fs/cgroup/memory" / path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{usage}\n")
    tightest = "" if inherited is None else f"hierarchical_memory_limit {inherited}\n"
    (folder / "memory.stat").write_text(f"{tightest}total_inactive_file {cached}\n")


def _available(root: Path) -> int:
    return available_memory(root, MACHINE)


def test_a_container_may_take_less_than_the_machine_has(tmp_path: Path) -> None:
    _group(tmp_path, "", 2_500_000, cached=400_000, max=3_000_000)
    assert _available(tmp_path) == 3_000_000 - 2_500_000 + 400_000


def test_an_old_container_too(tmp_path: Path) -> None:
    _old_group(tmp_path, "", 4_000_000, 5_000_000, cached=250_000)
    assert _available(tmp_path) == 1_250_000


@pytest.mark.parametrize("limited", ["", "a", "a/b", "a/b/c"])
def test_the_limit_may_stand_on_any_group_above(tmp_path: Path, limited: str) -> None:
    _belongs(tmp_path, "0::/a/b/c")
    for path in ("", "a", "a/b", "a/b/c"):
        _group(tmp_path, path, 600_000, max=700_000 if path == limited else "max")
    assert _available(tmp_path) == 100_000


def test_of_several_limits_the_one_counts_that_leaves_least(tmp_path: Path) -> None:
    _belongs(tmp_path, "0::/a/b")
    _group(tmp_path, "a", 6_000_000, max=6_300_000)  # others below it take much of the larger limit
    _group(tmp_path, "a/b", 500_000, max=1_000_000)
    assert _available(tmp_path) == 300_000


def test_what_slows_a_process_down_limits_it_too(tmp_path: Path) -> None:
    _group(tmp_path, "", 100_000, high=300_000, max=900_000)
    assert _available(tmp_path) == 200_000


def test_no_group_beside_or_below_counts(tmp_path: Path) -> None:
    _belongs(tmp_path, "0::/a")
    _group(tmp_path, "a", 0, max="max", high="max")
    for path in ("b", "a/b"):
        _group(tmp_path, path, 10, max=20)
    assert _available(tmp_path) == MACHINE


@pytest.mark.parametrize("path", ["/docker/0123", "/../../outside", "/"])
def test_in_a_container_whose_path_is_not_to_be_seen_the_topmost_folder_is_its_own(tmp_path: Path, path: str) -> None:
    _belongs(tmp_path, f"0::{path}")
    _group(tmp_path, "", 100_000, max=150_000)
    assert _available(tmp_path) == 50_000


def test_a_group_within_a_container_is_found_below_its_folder(tmp_path: Path) -> None:
    _belongs(tmp_path, "0::/docker/0123/worker")
    _group(tmp_path, "", 100_000, max=190_000)
    _group(tmp_path, "worker", 30_000, max=60_000)
    assert _available(tmp_path) == 30_000


def test_old_groups_of_any_depth_are_seen_beside_new_ones_without_a_limit(tmp_path: Path) -> None:
    _belongs(tmp_path, "9:name=systemd:/a", "5:cpu,memory:/a/b", "0::/a/b")
    (tmp_path / "sys/fs/cgroup/a/b").mkdir(parents=True)
    _old_group(tmp_path, "a", 800_000, 900_000)
    _old_group(tmp_path, "a/b", 100_000, 2**63 - 4096)
    assert _available(tmp_path) == 100_000


def test_an_old_container_says_what_limits_it_from_outside(tmp_path: Path) -> None:
    _belongs(tmp_path, "5:memory:/docker/0123")
    _old_group(tmp_path, "", 100_000, 2**63 - 4096, inherited=170_000)
    assert _available(tmp_path) == 70_000


def test_nothing_is_left_where_more_is_used_than_is_allowed(tmp_path: Path) -> None:
    _group(tmp_path, "", 300_000, high=200_000)
    assert _available(tmp_path) == 0


@pytest.mark.parametrize("limit", ["max", "much"])
def test_without_a_limit_that_can_be_read_the_machines_memory_counts(tmp_path: Path, limit: str) -> None:
    _group(tmp_path, "", 2_500_000, max=limit)
    assert _available(tmp_path) == MACHINE
    assert available_memory(tmp_path) <= psutil.virtual_memory().total


def test_the_disk_of_a_folder_to_be_made_is_that_of_the_folder_above(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "not" / "yet") == pytest.approx(free_disk(tmp_path), rel=0.5)
