"""`msport convert` with a wrong name, option or output: one line that says what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.command import Result, Run, assert_refused


def test_a_model_that_is_neither_folder_nor_hub_id_is_refused(msport: Run, output: Path) -> None:
    assert_refused(msport("convert", "./nowhere", "-o", output), output, "nowhere", "neither a folder nor a Hub id")


def test_an_output_folder_that_is_not_empty_is_left_alone(msport: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    result = msport("convert", model, "-o", tmp_path / "full")
    assert result.status == 2
    assert result.err == f"msport: error: {tmp_path}/full: the folder is not empty; name another with -o\n"
    assert (tmp_path / "full" / "mine").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-memory", "1MB"], "is too small"),
        (["--max-memory", "lots"], "'lots' is not a size"),
        (["--max-shard-size", "0"], "less than one byte"),
        (["--workers", "0"], "at least one"),
        (["--revision", "main"], "has no revision"),
        (["--source", "huggingface"], "is on no hub"),
        (["--source", "modelscope"], "is on no hub"),
        (["--keep-source"], "no copy is downloaded"),
    ],
)
def test_an_option_out_of_range_is_refused(
    msport: Run, model: Path, output: Path, options: list[str], message: str
) -> None:
    assert_refused(msport("convert", model, "-o", output, *options), output, message)


def test_a_disk_that_is_full_from_the_start(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msport.convert.output_folder.free_disk", lambda folder: 1000)
    assert_refused(msport("convert", model, "-o", output), output, "disk has 1.00 kB free", "another disk")


def test_a_folder_that_may_not_be_written_is_named(
    msport: Run, model: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_refused(msport("convert", model, "-o", output), output, "Permission denied", str(output.parent))


def test_an_error_in_a_real_process_is_one_line_and_with_debug_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "msport", "convert", str(tmp_path), "-o", str(tmp_path / "out")]
    child = subprocess.run(command, capture_output=True, text=True)
    assert_refused(Result(child.returncode, child.stdout, child.stderr), tmp_path / "out" / "x", str(tmp_path))
    debug = subprocess.run([*command[:3], "--debug", *command[3:]], capture_output=True, text=True)
    assert debug.returncode == 2
    assert "Traceback" in debug.stderr


def test_a_converted_folder_is_converted_again_only_under_a_name_that_is_given(
    msport: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert msport("convert", "model").status == 0
    result = msport("convert", "model-ms")
    assert (result.status, result.out) == (2, "")
    assert result.err == (
        "msport: error: model-ms: is converted already, and ready to use; to convert it again, to another dtype or"
        " format, name the output with -o\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "model-ms"]
    assert msport("convert", "model-ms", "-o", "again", "--format", "ckpt").status == 0
