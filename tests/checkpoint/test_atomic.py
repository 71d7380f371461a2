"""Files that are either absent or complete."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from msport.checkpoint import write_atomically


@pytest.mark.parametrize("data", [b"\x00bytes", "text 🤗\n", b"", ""])
def test_bytes_and_text_are_written(data: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, data)
    assert path.read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert os.listdir(tmp_path) == ["x.json"]


def test_the_file_has_the_permissions_that_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_atomically(tmp_path / "x", "")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_symbolic_link_in_the_way_is_replaced_and_its_target_spared(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "x").symlink_to("target")
    write_atomically(tmp_path / "x", "new")
    assert (tmp_path / "target").read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "x").is_symlink()
    assert (tmp_path / "x").read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(
    call: str, fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(os, "fsync", fail) if call == "fsync" else monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(type(fault)) as error:
        write_atomically(path, "new")
    if isinstance(error.value, OSError):
        assert error.value.filename == str(path)
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_missing_folder_is_an_os_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        write_atomically(tmp_path / "none" / "x", "")
    assert error.value.filename == str(tmp_path / "none" / "x")


def test_the_contents_are_durable_before_the_name_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        events.append("sync folder" if (tmp_path / "x").exists() else "sync file")
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> Path:
        events.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    write_atomically(tmp_path / "x", "new")
    assert events == ["sync file", "rename", "sync folder"]
