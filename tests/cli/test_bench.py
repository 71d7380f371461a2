"""``msport bench`` hands its options on, and prints text or one JSON document."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from bench.made_reports import COMPARED

import msport.bench
from msport.cli import main
from msport.errors import OutputError
from msport.progress import Step
from msport.sample import write_sample


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `benchmark` is called with, beside one converted checkpoint; it answers with a made report."""
    calls: list[dict[str, Any]] = []

    def benchmark(folder: Path, **options: Any) -> Any:
        calls.append({"folder": folder, **options})
        options["progress"](Step("msport: run", 1, 2))
        return COMPARED

    monkeypatch.setattr(msport.bench, "benchmark", benchmark, raising=False)
    (tmp_path / "model-ms").mkdir()
    (tmp_path / "model-ms" / "msport.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return calls


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["bench", *arguments])
    return int(caught.value.code or 0)


def test_options_reach_the_benchmark_of_the_newest_conversion(calls: list[dict[str, Any]]) -> None:
    status = _run(
        *("--suite", "grid", "--prompt", "32,64", "--new-tokens", "8", "--batch", "1, 2", "--dtype", "float32,float16"),
        *(
            "--warmup",
            "1",
            "--repeats",
            "3",
            "--processes",
            "1",
            "--baseline",
            "torch",
            "--threads",
            "1",
            "--seed",
            "5",
        ),
        *("--max-length", "128"),
    )
    (call,) = calls
    call.pop("progress")
    assert status == 0
    assert call.pop("folder").name == "model-ms"
    assert call == {
        "suite": "grid",
        "prompt_tokens": (32, 64),
        "new_tokens": 8,
        "batch": (1, 2),
        "dtype": ("float32", "float16"),
        "max_length": 128,
        "warmup": 1,
        "repeats": 3,
        "processes": 1,
        "threads": 1,
        "seed": 5,
        "baseline": "torch",
        "reference": None,
    }


def test_what_is_left_open_is_the_suites_own(calls: list[dict[str, Any]]) -> None:
    _run()
    (call,) = calls
    assert {name for name, value in call.items() if value is not None} == {"folder", "seed", "progress"}


@pytest.mark.parametrize("option", [("--batch", "0"), ("--prompt", "8,,16"), ("--dtype", "float32,int8"), ("a", "b")])
def test_what_is_no_list_of_values_is_refused(calls: list[dict[str, Any]], option: tuple[str, str]) -> None:
    assert _run(*option) == 2
    assert calls == []


def test_the_text_goes_to_stdout_and_nothing_to_stderr(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    _run("model-ms")
    captured = capsys.readouterr()
    assert captured.out == f"{COMPARED}\n"
    assert captured.err == ""


def test_json_is_one_document_on_stdout_or_in_a_file_beside_the_text(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    _run("--json", "-")
    assert json.loads(capsys.readouterr().out) == json.loads(COMPARED.to_json())
    _run("--json", "report.json")
    assert capsys.readouterr().out == f"{COMPARED}\n"
    assert json.loads(Path("report.json").read_text(encoding="utf-8")) == json.loads(COMPARED.to_json())


def test_csv_and_a_page_are_written_beside_the_text(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    _run("--csv", "report.csv", "--html", "report.html", "--published")
    assert "PUBLISHED by others" in capsys.readouterr().out
    assert Path("report.csv").read_text(encoding="utf-8") == COMPARED.to_csv()
    assert Path("report.html").read_text(encoding="utf-8") == COMPARED.to_html(published=True)
    _run("--csv", "-")
    assert capsys.readouterr().out == COMPARED.to_csv()


def test_reports_are_compared_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.json", "b.json"):
        Path(name).write_text(COMPARED.to_json(), encoding="utf-8")
    assert _run("--compare", "a.json", "b.json", "--json", "changes.json", "--html", "changes.html") == 0
    assert "figures agree within the runs' own stated spread; 0 better, 0 worse beyond it" in capsys.readouterr().out
    assert json.loads(Path("changes.json").read_text(encoding="utf-8"))["before"]["file"] == "a.json"
    assert "</html>" in Path("changes.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--compare", "a.json"), "--compare needs two or more reports"),
        (("--compare", "a.json", "b.json"), "a.json: cannot be read"),
        (("--compare", "a.json", "b.json", "--csv", "x.csv"), "--compare writes no CSV"),
    ],
)
def test_a_comparison_of_nothing_is_refused(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run("--json", "missing/report.json") == 2
    assert calls == []
    assert "missing/report.json: its folder does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--json", "."), ".: is a folder; name a file in it"),
        (("--html", "-"), "--html needs a file"),
        (("--json", "-", "--csv", "-"), "only one of --json and --csv can be printed"),
        (("--json", "a", "--csv", "./a"), "--csv ./a would overwrite what --json writes"),
        (("--reference", "org/model"), "only --baseline torch has a reference: --reference would be ignored"),
        (("--compare", "a", "b", "--json", "a"), "--json a would overwrite a"),
        (
            ("--compare", "a", "b", "--batch", "4", "--published"),
            "measures nothing: --batch, --published would be ignored",
        ),
    ],
)
def test_what_would_be_lost_or_ignored_is_refused(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert _run(*arguments) == 2
    assert calls == []
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_refused(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**where: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("msport.cli.outputs.TemporaryFile", refuse)
    assert _run("--json", "report.json") == 2
    assert calls == []
    message = capsys.readouterr().err
    assert "report.json: nothing can be written to" in message
    assert "(Read-only file system)" in message


def test_one_file_that_cannot_be_written_does_not_lose_the_others(
    calls: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, text: str) -> None:
        if path.suffix == ".json":
            raise OutputError("report.json: disk full")
        path.write_text(text, encoding="utf-8")

    monkeypatch.setattr("msport.cli.outputs.write_atomically", write)
    assert _run("--json", "report.json", "--csv", "report.csv", "--html", "report.html") == 2
    assert "report.json: disk full" in capsys.readouterr().err
    assert Path("report.csv").is_file()
    assert Path("report.html").is_file()


def test_an_unknown_baseline_is_refused(calls: list[dict[str, Any]]) -> None:
    assert _run("--baseline", "jax") == 2
    assert calls == []


@pytest.mark.slow
@pytest.mark.reference
def test_a_real_benchmark_beside_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sample("gpt-oss", tmp_path / "source", overrides={"num_hidden_layers": 2})
    with pytest.raises(SystemExit):
        main(["convert", str(tmp_path / "source"), "-o", str(tmp_path / "converted")])
    capsys.readouterr()
    options = ("--prompt", "20", "--new-tokens", "6", "--repeats", "2", "--baseline", "torch", "--json", "-")
    assert _run(str(tmp_path / "converted"), *options) == 0
    document = json.loads(capsys.readouterr().out)
    assert (
        document["sessions"][0]["results"][0]["runs"][0]["tokens"]
        == (document["baselines"][0]["results"][0]["runs"][0]["tokens"])
    )
    assert all(ratio > 0 for ratio in document["times_as_fast_as_baseline"][0][0].values())
