"""A command finds the converted checkpoint that the user means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from msport.cli.folders import find_folder
from msport.errors import CheckpointError, UsageError


def _converted(folder: Path, modified: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "msport.json").write_text("{}")
    os.utime(folder / "msport.json", (modified, modified))
    return folder


def test_the_current_folder_comes_first(tmp_path: Path) -> None:
    _converted(tmp_path)
    _converted(tmp_path / "below", modified=99)
    assert find_folder(None, tmp_path) == tmp_path


def test_otherwise_the_newest_conversion_directly_below_is_used(tmp_path: Path) -> None:
    _converted(tmp_path / "old", modified=10)
    _converted(tmp_path / "new", modified=20)
    _converted(tmp_path / "deep" / "er", modified=30)
    (tmp_path / "other").mkdir()
    assert find_folder(None, tmp_path) == tmp_path / "new"


def test_a_named_folder_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _converted(tmp_path)
    _converted(tmp_path / "named")
    monkeypatch.chdir(tmp_path)
    assert find_folder("named") == Path("named")


def test_without_any_conversion_the_remedy_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="msport convert"):
        find_folder(None, tmp_path)


def test_a_named_folder_that_is_not_a_conversion_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a model"
    folder.mkdir()
    with pytest.raises(CheckpointError, match=rf"msport\.json is missing.*: msport convert '{folder}'$"):
        find_folder(str(folder))
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="is a file; name the folder"):
        find_folder(str(tmp_path / "file"))


def test_a_named_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        find_folder(str(tmp_path / "absent"))
