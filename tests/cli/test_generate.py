"""``msport generate``: which tokens the model gets, what is printed as tokens come, and what is refused beforehand."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msport.architectures import load_config
from msport.cli import main
from msport.cli.prompt import encode_prompt
from msport.errors import UsageError
from msport.msmodels.tokenizer import Tokenizer, load_tokenizer
from msport.progress import Phases

ANSWER = "ok 你好 😀!"
IN_CHANNELS = "<|channel|>analysis<|message|>用户 greets.<|end|><|start|>assistant<|channel|>final<|message|>你好😀!"


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
    """Stands in for the model: keeps what it was given, and answers ``seen["answer"]``, or `ANSWER`, and a stop id."""
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
            room = seen["max_length"] - len(ids)
            seen.update(ids=ids, max_new_tokens=max_new_tokens, **options)
            yield from [*tokenizer.encode(seen.get("answer", ANSWER)), stop][: min(max_new_tokens, room)]

    def load(folder: Path, phases: Phases, **options: Any) -> Model:
        seen.pop("ids", None)
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


def _stdin(content: bytes, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors=errors)


def _assert_one_line(capsys: pytest.CaptureFixture[str], *parts: str) -> None:
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "internal error" not in err
    for part in parts:
        assert part in err


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
    names = ["prompt", "starting", "loading", "compiling", "first token", "total"]
    assert [part.rpartition(" ")[0].rpartition(" ")[0] for part in spent.split(", ")] == names
    seconds = [float(part.split()[-2]) for part in spent.split(", ")]
    assert seconds[-1] >= sum(seconds[:-1]) - 0.03  # each is rounded


def test_what_a_terminal_cannot_show_is_replaced(
    converted: Path, calls: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.TextIOWrapper(io.BytesIO(), encoding="gbk", newline="\n")
    monkeypatch.setattr("sys.stdout", screen)
    assert _run(converted, "-p", "hello") == 0
    assert screen.buffer.getvalue().decode("gbk") == "ok 你好 ?!\n"  # type: ignore[attr-defined]


def test_the_prompt_goes_through_the_chat_template_where_there_is_one(
    converted: Path, calls: dict[str, Any], tokenizer: Tokenizer
) -> None:
    _run(converted, "-p", "hello", "--system", "Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    assert calls["ids"] == tokenizer.encode(tokenizer.apply_chat_template(messages), add_special_tokens=False)


def test_a_raw_prompt_is_encoded_as_it_is(converted: Path, calls: dict[str, Any], tokenizer: Tokenizer) -> None:
    _run(converted, "-p", "hello", "--raw")
    assert calls["ids"] == tokenizer.encode("hello")


def test_without_a_template_the_prompt_is_used_unchanged(
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
    monkeypatch.setattr("sys.stdin", _stdin("你好\n".encode()))
    _run(converted, "-p", "-", "--raw")
    assert calls["ids"] == tokenizer.encode("你好")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_a_prompt_in_another_encoding_on_stdin_is_refused_with_the_remedy(
    errors: str,
    converted: Path,
    calls: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", _stdin("你好".encode("gbk"), errors))
    assert _run(converted, "-p", "-") == 2
    _assert_one_line(capsys, "not UTF-8", "iconv -f GBK -t UTF-8")


@pytest.mark.parametrize("options", [["-p"], ["--raw", "-p"], ["-p", "hello", "--system"]])
def test_an_argument_in_another_encoding_is_refused_with_the_remedy(
    options: list[str], converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(converted, *options, os.fsdecode("你好".encode("gbk"))) == 2
    _assert_one_line(capsys, "not UTF-8", "iconv -f GBK -t UTF-8")


@pytest.mark.parametrize("stdin", [None, "closed"])
def test_a_prompt_from_a_closed_stdin_is_refused(
    stdin: str | None,
    converted: Path,
    calls: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = _stdin(b"")
    closed.close()
    monkeypatch.setattr("sys.stdin", closed if stdin else None)
    assert _run(converted, "-p", "-") == 2
    _assert_one_line(capsys, "stdin is closed", "-p TEXT")


def test_a_reader_that_goes_away_ends_it_without_a_word(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr("sys.stdout", os.fdopen(writer, "w", encoding="utf-8"))
    assert _run(converted, "-p", "hello") == 141
    assert capsys.readouterr().err == ""


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
        (("-p", ""), "empty"),
        (("-p", "a", "-p", "b"), "one prompt, not 2"),
        (("-p", "a", "--ids", "1"), "goes to the model as it is: --prompt would be ignored"),
        (("--ids", "1", "--system", "be", "--chat"), "--system, --chat would be ignored"),
        (("--ids", "1,-1"), "--ids: -1 is not a token"),
        (("--ids", "1,1024"), "from 0 to 1023"),
        (("--ids", "1", "--max-length", "131073"), "more than the 131072 positions"),
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


def test_of_a_prompt_that_is_far_too_long_only_the_beginning_is_encoded(
    converted: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(load_config(converted), max_position_embeddings=64)
    lengths: list[int] = []
    encode = tokenizer.encode

    def counting(text: str, **options: bool) -> list[int]:
        lengths.append(len(text))
        return encode(text, **options)

    monkeypatch.setattr(tokenizer, "encode", counting)
    with pytest.raises(UsageError, match="200000 characters has more than 64 tokens"):
        encode_prompt("你好" * 100_000, tokenizer, converted, config, chat=False, system=None)
    assert max(lengths) < 1000
    spaces = " " * 1000  # of which the beginning may still be few tokens: all of it is encoded
    monkeypatch.setattr(tokenizer, "encode", lambda text, **options: [1] * (len(text) // 16))
    assert len(encode_prompt(spaces, tokenizer, converted, config, chat=False, system=None)) == 62


def test_a_prompt_beyond_the_model_itself_is_refused(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    limit = load_config(converted).max_position_embeddings
    assert _run(converted, "--ids", ",".join(["1"] * limit)) == 2
    assert "the model was made for no more" in capsys.readouterr().err


def test_reasoning_goes_to_stderr_and_the_answer_to_stdout(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    calls["answer"] = IN_CHANNELS
    assert _run(converted, "-p", "hello") == 0
    out, err = capsys.readouterr()
    assert out == "你好😀!\n"
    assert err.startswith("[analysis]\n用户 greets.\n97 prompt")
    assert err.count("\n") == 3


def test_a_terminal_shows_both_channels_under_their_names(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls["answer"] = IN_CHANNELS
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.write", sys.stdout.write)  # one screen
    _run(converted, "-p", "hello")
    assert capsys.readouterr().out.startswith("[analysis]\n用户 greets.\n[final]\n你好😀!\n97 prompt")


def test_without_reasoning_no_channel_is_named(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls["answer"] = "<|channel|>final<|message|>你好😀!"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    _run(converted, "-p", "hello")
    out, err = capsys.readouterr()
    assert out == "你好😀!\n"
    assert "[" not in err


@pytest.mark.parametrize(
    ("options", "answer", "reason"),
    [
        ([], ANSWER, "end of text"),
        (["--max-new-tokens", "3"], ANSWER, "stopped at --max-new-tokens 3"),
        (["--max-new-tokens", "3", "--max-length", "7"], ANSWER, "stopped at --max-new-tokens 3"),
        (["--max-new-tokens", "9", "--max-length", "7"], ANSWER, "the context of 7 tokens is full"),
        (
            ["--max-new-tokens", "9", "--raw", "-p", "<|start|>assistant"],
            IN_CHANNELS,
            "stopped at --max-new-tokens 9 in the channel analysis, before an answer",
        ),
    ],
)
def test_the_last_line_says_why_the_text_ended(
    options: list[str],
    answer: str,
    reason: str,
    converted: Path,
    calls: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls["answer"] = answer
    assert _run(converted, *options, *([] if "-p" in options else ["--ids", "1,2,3,4"])) == 0
    assert capsys.readouterr().err.splitlines()[-1].split("; ")[2] == reason


def test_the_model_that_was_taken_is_named_where_none_was_given(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(converted.parent)
    assert _run("-p", "hello") == 0
    assert capsys.readouterr().err.startswith("model: tiny-ms\n")
    monkeypatch.chdir(converted)
    assert _run("-p", "hello") == 0
    assert capsys.readouterr().err.startswith(f"model: {converted}\n")


def test_a_note_names_sampling_options_that_have_no_effect_at_temperature_0(
    converted: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    _run(converted, "-p", "hello", "--seed", "1", "--top-p", "0.5")
    assert "note: no effect at --temperature 0, which does not sample: --top-p and --seed\n" in capsys.readouterr().err
    _run(converted, "-p", "hello", "--seed", "1", "--temperature", "1")
    assert "note" not in capsys.readouterr().err


def test_a_tokenizer_of_another_model_is_named_before_anything_is_loaded(
    converted: Path, tmp_path: Path, calls: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for file in converted.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    document = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    document["model"]["vocab"]["!"] = 5000
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    assert _run(tmp_path, "-p", "!", "--raw") == 2
    _assert_one_line(capsys, "tokenizer.json gives id 5000", "vocab_size 1024")
    assert not calls


def test_a_real_model_generates_the_same_text_twice(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mindspore")
    texts = []
    for _ in range(2):
        assert _run(converted, "-p", "hello", "--temperature", "1", "--seed", "5", "--max-new-tokens", "8") == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].strip()
