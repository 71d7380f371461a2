"""``msport generate``: which tokens the model gets, what is printed as tokens come, and what is refused beforehand."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msport.architectures import load_config
from msport.cli import main
from msport.convert import convert_checkpoint
from msport.msmodels.tokenizer import Tokenizer, load_tokenizer
from msport.phases import Phases
from msport.sample import write_sample

ANSWER = "ok 你好 😀!"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generate")
    convert_checkpoint(write_sample("gpt-oss", root / "tiny", overrides={"num_hidden_layers": 1}), root / "tiny-ms")
    return root / "tiny-ms"


@pytest.fixture
def without_tokenizer(converted: Path, tmp_path: Path) -> Path:
    for file in converted.iterdir():
        if not file.name.startswith("tokenizer"):
            (tmp_path / file.name).symlink_to(file)
    return tmp_path


@pytest.fixture
def tokenizer(converted: Path) -> Tokenizer:
    loaded = load_tokenizer(converted)
    assert loaded is not None
    return loaded


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tokenizer: Tokenizer) -> dict[str, Any]:
    """Stands in for the model: keeps what it was given, and answers `ANSWER` and a stop id."""
    pytest.importorskip("mindspore")
    from msport.msmodels import loading

    seen: dict[str, Any] = {}
    stop = tokenizer.token_id("<|return|>")
    assert stop is not None

    class Model:
        stop_ids = frozenset({stop})

        def warm_up(self, phases: Phases) -> None:
            with phases.phase("compiling"):
                assert "ids" not in seen

        def generate(self, ids: list[int], max_new_tokens: int, **options: Any) -> Iterator[int]:
            seen.update(ids=ids, max_new_tokens=max_new_tokens, **options)
            yield from [*tokenizer.encode(ANSWER), stop][:max_new_tokens]

    def load(folder: Path, phases: Phases, **options: Any) -> Model:
        with phases.phase("loading"):
            seen.update(folder=folder, **options)
        return Model()

    monkeypatch.setattr(loading, "load_model", load)
    return seen


def _run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(["generate", *map(str, arguments)])
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code


def test_text_goes_to_stdout_without_the_stop_token_and_statistics_to_stderr(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(converted, "-p", "hello") == 0
    out, err = capsys.readouterr()
    assert out == ANSWER + "\n"
    assert "tokens/s" in err


def test_the_statistics_account_for_all_of_the_time(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(converted, "-p", "hello", "--raw") == 0
    spent = capsys.readouterr().err.splitlines()[-1].rpartition("; ")[2]
    names = ["starting", "loading", "compiling", "first token", "total"]
    assert [part.rpartition(" ")[0].rpartition(" ")[0] for part in spent.split(", ")] == names
    seconds = [float(part.split()[-2]) for part in spent.split(", ")]
    assert seconds[-1] >= sum(seconds[:-1]) - 0.03  # each is rounded


def test_the_prompt_goes_through_the_chat_template_where_there_is_one(
    converted: Path, calls: dict[str, Any], tokenizer: Tokenizer
) -> None:
    _run(converted, "-p", "hello", "--system", "Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    assert calls["ids"] == tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)


def test_a_raw_prompt_is_encoded_as_it_is(converted: Path, calls: dict[str, Any], tokenizer: Tokenizer) -> None:
    _run(converted, "-p", "hello", "--raw")
    assert calls["ids"] == tokenizer.encode("hello")


def test_without_a_template_the_prompt_is_taken_as_it_is(
    converted: Path, tmp_path: Path, calls: dict[str, Any], tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in converted.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).symlink_to(file)
    assert _run(tmp_path, "-p", "hello") == 0
    assert calls["ids"] == tokenizer.encode("hello")
    assert _run(tmp_path, "-p", "hello", "--chat") == 2
    assert "no chat template" in capsys.readouterr().err


def test_a_dash_reads_the_prompt_from_stdin(
    converted: Path, calls: dict[str, Any], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("你好\n"))
    _run(converted, "-p", "-", "--raw")
    assert calls["ids"] == tokenizer.encode("你好")


def test_options_of_sampling_reach_the_model(converted: Path, calls: dict[str, Any]) -> None:
    _run(converted, "--ids", "1,2,3", "--temperature", "0.7", "--top-p", "0.9", "--seed", "4", "--max-new-tokens", "2")
    assert calls["ids"] == [1, 2, 3]
    assert (calls["temperature"], calls["top_p"], calls["seed"], calls["max_new_tokens"]) == (0.7, 0.9, 4, 2)


def test_without_a_tokenizer_ids_go_in_and_come_out(
    without_tokenizer: Path, calls: dict[str, Any], tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(without_tokenizer, "--ids", "1,2", "--max-new-tokens", "3") == 0
    assert capsys.readouterr().out == ",".join(map(str, tokenizer.encode(ANSWER)[:3])) + "\n"


def test_caches_have_room_for_prompt_and_answer_in_steps(converted: Path, calls: dict[str, Any]) -> None:
    _run(converted, "--ids", ",".join(["1"] * 500), "--max-new-tokens", "12")
    assert calls["max_length"] == 512
    _run(converted, "--ids", ",".join(["1"] * 500), "--max-new-tokens", "13")
    assert calls["max_length"] == 1024
    _run(converted, "--ids", "1,2", "--max-length", "77")
    assert calls["max_length"] == 77


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "there is no prompt"),
        (("--ids", "1,x"), "commas"),
        (("--ids", "1,2,3", "--max-length", "3"), "3 tokens and leaves no room in a length of 3"),
        (("-p", "", "--raw"), "empty"),
        (("-p", "hi", "--raw", "--system", "be"), "--system needs a chat"),
        (("--ids", "1", "--temperature", "-1"), "temperature"),
        (("--ids", "1", "--top-p", "0"), "top_p"),
    ],
)
def test_bad_input_ends_in_one_line_before_anything_is_loaded(
    arguments: tuple[str, ...],
    reason: str,
    converted: Path,
    calls: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(converted, *arguments) == 2
    out, err = capsys.readouterr()
    assert reason in err
    assert (out, err.count("\n")) == ("", 1)
    assert not calls


def test_text_for_a_folder_without_a_tokenizer_names_the_way_out(
    without_tokenizer: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(without_tokenizer, "-p", "hello") == 2
    assert "--ids 1,2,3" in capsys.readouterr().err


def test_a_prompt_beyond_the_model_itself_is_refused(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    limit = load_config(converted).max_position_embeddings
    assert _run(converted, "--ids", ",".join(["1"] * limit)) == 2
    assert "the model was made for no more" in capsys.readouterr().err


def test_a_real_model_generates_the_same_text_twice(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mindspore")
    texts = []
    for _ in range(2):
        assert _run(converted, "-p", "hello", "--temperature", "1", "--seed", "5", "--max-new-tokens", "8") == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].strip()
