"""``msport validate``: exit status, where the report goes, and what is refused before anything runs."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from msport import validate
from msport.cli import main, outputs
from msport.validate.compare.metrics import measure
from msport.validate.compare.results import PromptResult
from msport.validate.findings import Setup
from msport.validate.prompts import Prompt
from msport.validate.reference import run
from msport.validate.report import Report
from msport.validate.verdict.rules import judge as judge_logits


def _run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(["validate", *map(str, arguments)])
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for `validate_model`: keeps its arguments, and reports a relative error of 1 %."""
    calls: dict[str, Any] = {}
    reference = np.arange(1.0, 13.0, dtype=np.float32).reshape(3, 4)
    result = PromptResult(Prompt("random", (1, 2, 3)), "prefill", 0, measure(reference, reference * np.float32(1.01)))
    date, versions = "2026-11-21T08:00:00+00:00", {"mindspore": "2.10.0", "transformers": "4.57.1", "torch": "2.13.0"}

    def fake(folder: Path, reference: str | None, tol: float | None, *, level: str, **options: Any) -> Report:
        calls.update(folder=folder, reference=reference, tol=tol, level=level, **options)
        tolerance = 1e-3 if tol is None else tol
        setup = Setup(
            str(folder),
            "X",
            "source",
            None,
            "0" * 64,
            "source",
            level,
            "tolerance",
            tolerance,
            0,
            date,
            versions,
            "CPU",
            "float32",
        )
        judgement = judge_logits([result], None, tolerance)
        return Report(setup, (dataclasses.replace(result, failing=judgement.failing[0]),), judgement)

    monkeypatch.setattr(validate, "validate_model", fake)
    return calls


def test_a_pass_exits_0_and_a_failure_1(
    converted: Path, judged: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(converted, "--tol", "2e-2") == 0
    assert "PASSED" in capsys.readouterr().out
    assert _run(converted, "--tol", "1e-3") == 1
    assert "FAILED: 3 of 3 tokens" in capsys.readouterr().out


def test_it_works_as_typed_after_a_conversion(
    converted: Path, judged: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(converted.parent)
    assert _run() == 1
    assert judged["folder"] == Path("tiny-ms")
    assert (judged["reference"], judged["tol"], judged["level"], judged["prompts"]) == (None, None, "logits", None)


def test_json_to_stdout_is_one_document_and_nothing_else(
    converted: Path, judged: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(converted, "--json", "-")
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_files_are_written_beside_the_text(
    converted: Path, judged: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(converted, "--json", tmp_path / "report.json", "--html", tmp_path / "report.html")
    assert "rel L2 max" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["schema"] == "msport.validate/6"
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_report_that_could_not_be_written_is_refused_beforehand(
    converted: Path, judged: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    for options, reason in (
        (("--json", tmp_path / "absent" / "report.json"), "its folder does not exist"),
        (("--html", tmp_path / "folder"), "is a folder"),
        (("--html", "-"), "--html needs a file: only --json can be printed"),
        (("--json", tmp_path / "report", "--html", tmp_path / "report"), "would overwrite what --json writes"),
    ):
        assert _run(converted, *options) == 2
        assert reason in capsys.readouterr().err
    assert not judged


def test_the_text_and_the_page_are_there_although_the_document_could_not_be_written(
    converted: Path,
    judged: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write(path: Path, text: str) -> None:
        if path.suffix == ".json":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_text(text, encoding="utf-8")

    monkeypatch.setattr(outputs, "write_atomically", write)
    assert _run(converted, "--json", tmp_path / "report.json", "--html", tmp_path / "report.html") == 2
    assert (tmp_path / "report.html").is_file()
    printed = capsys.readouterr()
    assert "rel L2 max" in printed.out
    assert "report.json: the disk is full" in printed.err


def test_a_report_goes_through_a_pipe_or_a_link_and_does_not_take_its_place(
    converted: Path, judged: dict[str, Any], tmp_path: Path
) -> None:
    link, pipe = tmp_path / "link.json", tmp_path / "pipe"
    link.symlink_to(tmp_path / "report.json")
    os.mkfifo(pipe)
    read = threading.Thread(target=lambda: received.append(pipe.read_text(encoding="utf-8")), daemon=True)
    received: list[str] = []
    read.start()
    _run(converted, "--json", link, "--html", pipe)
    read.join(timeout=600)
    assert link.is_symlink()
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["passed"] is False
    assert pipe.is_fifo()
    assert received[0].startswith("<!doctype html>")


def test_texts_and_token_ids_are_prompts_alike(
    converted: Path, judged: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(converted, "-p", "hello", "--ids", "1,2,3", "--ids", "4", "--dtype", "mxfp4")
    assert judged["prompts"] == ["hello", [1, 2, 3], [4]]
    assert judged["dtype"] == "mxfp4"
    assert _run(converted, "--ids", "1,x") == 2
    assert "write token ids with commas" in capsys.readouterr().err


def test_a_prompt_in_another_encoding_is_refused_with_the_remedy(
    converted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(converted, "-p", os.fsdecode("你好".encode("gbk"))) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "not UTF-8: it holds the byte 0xC4 (character 1); convert it first" in err


def test_what_cannot_be_judged_exits_2_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(tmp_path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "msport.json" in error


@pytest.mark.parametrize(
    "options",
    [
        ("--save-reference", "golden.safetensors"),
        ("-p", "hello"),
        ("--max-length", "100"),
        ("--dtype", "mxfp4"),
        ("--no-stream",),
        ("--reference-dtype", "bfloat16"),
    ],
)
def test_options_that_weights_would_ignore_are_refused(
    options: tuple[str, ...], converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / option) if option.endswith(".safetensors") else option for option in options]
    assert _run(converted, "--level", "weights", *given) == 2
    flag = {"-p": "--prompt", "--no-stream": "--stream"}.get(options[0], options[0])
    assert f"so {flag} would have no effect" in capsys.readouterr().err


def test_an_unknown_level_is_a_usage_error(converted: Path) -> None:
    assert _run(converted, "--level", "guess") == 2


def test_weights_are_compared_for_real(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(converted, "--level", "weights") == 0
    assert "all match their source" in capsys.readouterr().out


def test_a_source_that_is_gone_exits_2(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from msport.checkpoint import read_manifest, write_manifest

    (tmp_path / "config.json").write_text((converted / "config.json").read_text(encoding="utf-8"))
    write_manifest(tmp_path, dataclasses.replace(read_manifest(converted), source="/no/such/folder"))
    assert _run(tmp_path, "--level", "weights") == 2
    assert "--reference" in capsys.readouterr().err


def test_a_dtype_the_device_lacks_is_refused_before_the_reference_runs(
    converted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(run, "load_reference", lambda *arguments: pytest.fail("the reference was loaded"))
    assert _run(converted, "--dtype", "bfloat16") == 2
    assert "no bfloat16 kernels on CPU" in capsys.readouterr().err


# A process that is told to end while the reference is being loaded, its temporary folder made.
STOPPED = """
import os, signal, sys
from msport.cli import main
from msport.validate.reference import run
run.load_reference = lambda *arguments: os.kill(os.getpid(), signal.SIGTERM)
main(["validate", sys.argv[1]])
"""


def test_a_validation_that_is_stopped_leaves_no_temporary_files(converted: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", STOPPED, str(converted)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("msport-")]
    assert "Traceback" not in done.stderr
