"""Hubs that say what is not so: each ends in the right files, or in one line and nothing left behind."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hub.conftest import FAST
from hub.hub_server import COMMIT, Answer, HubServer
from msport.errors import MsportError
from msport.hub import Source, resolve

# Each hub's list, and both ways in which a file is fetched.
ROADS = [("huggingface", True), ("modelscope", False)]
CONFIG, TOKENIZER = "config.json", "tokenizer.json"

pytestmark = pytest.mark.parametrize(("source", "stream"), ROADS, ids=lambda value: str(value))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def ask(source: str, stream: bool) -> Source:
    """All that is done before a conversion writes anything."""
    found = resolve("org/model", hub=source, stream=stream, network=FAST)
    found.open().close()
    return found


def assert_refused(source: str, stream: bool, temporary: Path, message: str) -> None:
    with pytest.raises(MsportError, match=message) as error:
        ask(source, stream)
    assert "\n" not in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600
    del error
    assert list(temporary.iterdir()) == []


def entries(document: Any) -> list[dict[str, Any]]:
    """The files that a document of either hub lists."""
    return document["siblings"] if "siblings" in document else document["Data"].get("Files", [])


def set_size(value: Any) -> Callable[[Any], None]:
    return lambda document: [entry.update(size=value, Size=value) for entry in entries(document)] and None


def set_name(value: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for entry in entries(document):
            if CONFIG in (entry.get("rfilename"), entry.get("Path")):
                entry.update(rfilename=value, Path=value)

    return change


def set_commit(value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        document["sha"] = value
        if "Commit" in document.get("Data", {}):
            document["Data"]["Commit"] = [{"Id": value}]

    return change


def without_files(document: Any) -> None:
    document.pop("siblings", None)
    document.get("Data", {}).pop("Files", None)


LISTS = {
    "size -1": (set_size(-1), "has -1 bytes"),
    "size as text": (set_size("7"), "has '7' bytes"),
    "no size": (set_size(None), "has None bytes"),
    "size true": (set_size(True), "has True bytes"),
    "size without end": (set_size(10**19), "has 10000000000000000000 bytes, more than 10000000"),
    "a settings file of 190 MB": (set_size(190_000_000), r"has 190000000 bytes, more than 10000000"),
    "no list": (without_files, "lists no files"),
    "a list of numbers": (lambda document: entries(document).__setitem__(slice(None), [1, None, "x"]), "has no model"),
    "a lone surrogate": (set_name("model\ud800.safetensors"), "unpaired surrogate"),
}


@pytest.mark.parametrize("lie", LISTS)
def test_a_list_that_cannot_be_is_refused(hub: HubServer, source: str, stream: bool, temporary: Path, lie: str) -> None:
    hub.change, message = LISTS[lie]
    assert_refused(source, stream, temporary, message)


@pytest.mark.parametrize("commit", [7, ["main"], None, "../../main", "0" * 39, ""], ids=str)
def test_an_invalid_commit_names_no_folder(
    hub: HubServer, source: str, stream: bool, temporary: Path, commit: Any
) -> None:
    hub.change = set_commit(commit)
    if source == "huggingface":
        assert_refused(source, stream, temporary, "lists no files of a commit")
    else:
        assert ask(source, stream).revision == "master"  # as its own client does where no commit is told


@pytest.mark.parametrize("name", ["../config.json", "/etc/config.json", "a/config.json", "config.json\0", "..", ""])
def test_a_name_that_is_not_plain_is_never_requested(
    hub: HubServer, source: str, stream: bool, temporary: Path, name: str
) -> None:
    hub.change = set_name(name)
    found = ask(source, stream)
    assert not (found.folder / CONFIG).exists()
    assert {path.parent for path in found.folder.rglob("*")} <= {found.folder}
    assert hub.gets(CONFIG) == hub.gets(name) == []


def test_a_file_that_is_listed_twice_is_fetched_once(
    hub: HubServer, source: str, stream: bool, temporary: Path
) -> None:
    hub.change = lambda document: entries(document).extend(list(entries(document)))
    assert (ask(source, stream).folder / CONFIG).read_bytes() == hub.files[CONFIG]
    assert len(hub.gets(CONFIG)) == 1


BODIES = {
    "a web page": (b"<!DOCTYPE html><html></html>", "is no document"),
    "cut JSON": (b'{"sha": "01', "is no document"),
    "nothing": (b"", "is no document"),
    "not UTF-8": (b'{"sha": "\xff"}', "is no document"),
    "nested without end": (b"[" * 100_000, "is no document"),
    "an integer of 5,000 digits": (b'{"sha": ' + b"1" * 5000 + b"}", "is no document"),
    "a duplicate key": (b'{"sha": 1, "sha": 2}', "is no document"),
    "a list": (b"[]", "lists no files|refuses"),
    "a number": (b"1", "lists no files|refuses"),
    "null": (b"null", "lists no files|refuses"),
}


@pytest.mark.parametrize("body", BODIES)
def test_what_is_no_list_is_refused(hub: HubServer, source: str, stream: bool, temporary: Path, body: str) -> None:
    hub.api_body, message = BODIES[body]
    assert_refused(source, stream, temporary, message)


def test_a_list_that_would_unfold_is_refused(hub: HubServer, source: str, stream: bool, temporary: Path) -> None:
    hub.api_body = gzip.compress(b" " * 10_000_000)
    hub.api_headers = {"Content-Encoding": "gzip"}
    assert_refused(source, stream, temporary, r"compressed its answer \('gzip'\)")


def test_a_list_that_is_longer_than_any_is_refused(hub: HubServer, source: str, stream: bool, temporary: Path) -> None:
    hub.api_body = b" " * 50_000_001
    assert_refused(source, stream, temporary, "is no document .larger than 50000000 bytes")


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (429, {"Retry-After": str(10**9)}, "answered with status 429"),
        (429, {"Retry-After": "9" * 400}, "answered with status 429"),
        (429, {"Retry-After": "soon"}, "answered with status 429"),
        (503, {}, "answered with status 503"),
        (418, {}, "answered with status 418"),
        (302, {"Location": "http://[::1"}, "is not a plain address"),
        (302, {"Location": "http://localhost:99999/x"}, "is not a plain address"),
        (302, {"Location": "http://localhost:port/x"}, "is not a plain address"),
        (302, {"Location": "http://\xff\xfe/x"}, "is not a plain address"),
        (302, {"Location": "/again"}, "redirects more than 5 times"),
        (302, {}, "answered with status 302"),
    ],
)
def test_a_hub_that_only_refuses_is_left_with_a_line(
    hub: HubServer, source: str, stream: bool, temporary: Path, status: int, headers: dict[str, str], message: str
) -> None:
    hub.statuses.extend([(status, headers)] * 20)
    assert_refused(source, stream, temporary, message)


FILES = {
    "404": (Answer(status=404), "is not there any more|no public model"),
    "5xx for ever": (Answer(status=502), "answered with status 502; gave up after 4 attempts"),
    "429 for ever": (Answer(status=429, headers={"Retry-After": "1000000000"}), "is longer than 5 s"),
    "longer": (Answer(content=b"{}" * 10_000), "source changed while it was read"),
    "shorter": (Answer(content=b"{}"), "source changed while it was read"),
    "no length, and too short": (Answer(content=b"{}", headers={"Content-Length": None}, cut=2), "shorter than it was"),
    "compressed": (Answer(headers={"Content-Encoding": "gzip"}), "compressed its answer"),
    "a range of another file": (Answer(headers={"Content-Range": "bytes 0-1/2"}), "source changed while it was read"),
    "overlapping ranges": (Answer(headers={"Content-Range": "bytes 0-1,1-2/3"}), "sent the range"),
    "multipart": (Answer(status=206), "sent a range without saying which"),
    "escape sequences": (Answer(headers={"Content-Encoding": "\x1b[31mred"}), r"compressed its answer \('\\x1b"),
    "no status": (Answer(status=999), "answered with status 999"),
}


@pytest.mark.parametrize("lie", FILES)
def test_a_file_that_is_not_what_was_listed_is_refused(
    hub: HubServer, source: str, stream: bool, temporary: Path, lie: str
) -> None:
    answer, message = FILES[lie]
    hub.answers[CONFIG] = deque([answer] * 20)
    assert_refused(source, stream, temporary, message)
    assert not list(temporary.parent.rglob(CONFIG))


def test_a_flipped_byte_is_noticed(hub: HubServer, source: str, stream: bool, temporary: Path) -> None:
    content = hub.files[CONFIG]
    hub.answers[CONFIG] = deque([Answer(content=content[:-2] + b" " + content[-1:])])
    assert_refused(source, stream, temporary, "its hash [0-9a-f]+ is not [0-9a-f]+, which the Hub states")
    assert not list(temporary.parent.rglob(f"{CONFIG}*"))


def test_where_no_hash_is_stated_it_is_said(
    hub: HubServer, source: str, stream: bool, temporary: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def forget(document: Any) -> None:
        for entry in entries(document):
            if TOKENIZER not in (entry.get("rfilename"), entry.get("Path")):
                for key in ("blobId", "lfs", "Sha256"):
                    entry.pop(key, None)

    hub.change = forget
    found = ask(source, stream)
    assert set(found.fetched) == set(hub.files)
    assert {name for name, check in found.fetched.items() if check != "no-hash"} == {TOKENIZER}
    (line,) = caplog.messages
    assert "states no hash of" in line
    assert CONFIG in line
    assert "\n" not in line


def test_the_server_itself_tells_no_lie(hub: HubServer, source: str, stream: bool, temporary: Path) -> None:
    """Without which the tests above could pass for a reason of their own."""
    hub.change = lambda document: json.dumps(document) and None
    found = ask(source, stream)
    assert (found.revision, set(found.fetched)) == (COMMIT, set(hub.files))
