from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hub.conftest import FAST, point_clients_at
from hub.hub_server import COMMIT, Answer, HubServer, serve
from msport.errors import CheckpointError, HubError, UsageError
from msport.hub import Source, find_reference, resolve
from msport.hub.huggingface import _link
from msport.sample import write_sample

NEEDED = {
    "config.json": b"{}",
    "generation_config.json": b"{}",
    "model-00001-of-00002.safetensors": b"first",
    "model-00002-of-00002.safetensors": b"second",
    "model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00002.safetensors"}}',
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "chat_template.jinja": b"",
    "vocab.json": b"{}",
    "merges.txt": b"",
    "tokenizer.model": b"",
}
NOT_NEEDED = {
    "README.md": b"",
    "pytorch_model.bin": b"",
    "consolidated.safetensors": b"",
    "original/model.safetensors": b"",
    "original/config.json": b"",
    "metal/model.bin": b"",
    "model_extra/model.safetensors": b"",
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve({**NEEDED, **NOT_NEEDED}) as server:
        point_clients_at(server.url, tmp_path / "cache", monkeypatch)
        yield server


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(tmp_path) == Source(tmp_path, str(tmp_path), None)
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("org/model") == Source(Path("org/model"), str(tmp_path / "org" / "model"), None)


def test_the_reference_is_the_named_checkpoint_else_the_source_of_the_conversion(tmp_path: Path) -> None:
    source, other = tmp_path / "source", tmp_path / "other"
    other.mkdir()
    with pytest.raises(CheckpointError, match="the source of this conversion is gone"):
        find_reference(None, str(source), None)
    source.mkdir()
    assert find_reference(None, str(source), None) == resolve(source)
    assert find_reference(other, str(source), None) == resolve(other)


def test_a_hub_id_becomes_a_snapshot_of_what_is_needed_and_its_commit(hub: HubServer) -> None:
    source = resolve("org/model")
    assert (source.id, source.revision) == ("org/model", COMMIT)
    assert {path.name: path.read_bytes() for path in source.folder.iterdir()} == NEEDED


def test_the_client_finds_what_was_downloaded_and_the_other_way_round(hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import constants, snapshot_download

    folder = resolve("org/model").folder
    assert Path(snapshot_download("org/model", local_files_only=True)) == folder
    assert all(path.is_symlink() and path.resolve().parent.name == "blobs" for path in folder.iterdir())
    shutil.rmtree(constants.HF_HUB_CACHE)
    assert Path(snapshot_download("org/model")) == folder
    hub.seen.clear()
    assert resolve("org/model").folder == folder
    assert hub.requests == ["GET /api/models/org/model?blobs=true"]


def test_an_interrupted_download_resumes(hub: HubServer) -> None:
    name = "model-00002-of-00002.safetensors"
    folder = resolve("org/model").folder
    blob = (folder / name).resolve()
    blob.unlink()
    blob.with_name(f"{blob.name}.incomplete").write_bytes(NEEDED[name][:2])
    hub.seen.clear()
    assert (resolve("org/model").folder / name).read_bytes() == NEEDED[name]
    assert [request.range for request in hub.gets(name)] == [(2, len(NEEDED[name]))]
    assert len(hub.seen) == 3  # the list, where the file lies, the file
    assert not list(blob.parent.glob("*.incomplete"))


def test_two_downloads_at_once_do_not_disturb_each_other(hub: HubServer) -> None:
    hub.answers = {name: deque([Answer(drip=0.05)]) for name in NEEDED}
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(resolve, ["org/model"] * 2)
    assert first.folder == second.folder
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == NEEDED
    assert not list(first.folder.parents[1].glob("blobs/*.incomplete"))


def test_a_link_is_made_while_others_make_the_same(tmp_path: Path) -> None:
    blob, path = tmp_path / "blobs" / "0123", tmp_path / "snapshots" / "commit" / "config.json"
    blob.parent.mkdir()
    blob.write_text("{}")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _link(blob, path), range(2000)))
    assert path.read_text(encoding="utf-8") == "{}"
    assert [each.name for each in blob.parent.iterdir()] == ["0123"]


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_is_resolved_to_its_commit(hub: HubServer, revision: str) -> None:
    assert resolve("org/model", revision).revision == COMMIT
    assert f"GET /api/models/org/model/revision/{revision}?blobs=true" in hub.requests


def test_a_second_time_nothing_is_downloaded(hub: HubServer) -> None:
    first = resolve("org/model")
    hub.seen.clear()
    assert resolve("org/model") == first
    assert all(request.startswith("GET /api/") for request in hub.requests)


def test_without_a_network_the_cache_serves(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = resolve("org/model")
    point_clients_at("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    assert resolve("org/model") == first


def test_without_a_network_or_a_copy_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_clients_at("http://127.0.0.1:9", tmp_path / "cache", monkeypatch)
    with pytest.raises(HubError, match=r"^org/model: no such folder, and http://127\.0\.0\.1:9 cannot be reached"):
        resolve("org/model")


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        (
            "org/gated",
            None,
            "is gated; ask for access at http://.*/org/gated, then run `hf auth login`",
        ),
        ("org/missing", None, "no such folder, and no public repository at http://"),
        ("org/model", "v9", "has no revision 'v9'; give one of its branches, tags or commits"),
    ],
)
def test_what_the_hub_refuses_is_explained(hub: HubServer, model: str, revision: str | None, message: str) -> None:
    with pytest.raises(HubError, match=message) as error:
        resolve(model, revision)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "revision", ["", "../../x", "/etc/x", "a/../b", "a//b", ".hidden", "a b", "a\n", "a\0", "a\\b"]
)
@pytest.mark.parametrize("model", ["org/model", "modelscope:org/model"])
def test_what_cannot_be_a_revision_is_not_asked_for(hub: HubServer, tmp_path: Path, model: str, revision: str) -> None:
    with pytest.raises(UsageError, match="is no branch, tag or commit"):
        resolve(model, revision)
    assert hub.seen == []
    assert not (tmp_path / "cache").exists()


def test_a_revision_may_have_parts(hub: HubServer) -> None:
    with pytest.raises(HubError, match="has no revision 'refs/pr/1'"):
        resolve("org/model", "refs/pr/1")


def test_a_hub_that_fails_is_not_blamed_on_the_user(hub: HubServer) -> None:
    with pytest.raises(
        HubError,
        match=r"org/broken: no such folder, and http://.* cannot be reached \(127.* answered with status 500\)",
    ):
        resolve("org/broken", network=FAST)


def test_a_disk_that_fills_up_while_downloading_stays_an_os_error(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/cache")

    monkeypatch.setattr("msport.hub.local_files.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        resolve("org/model")


@pytest.mark.parametrize(
    "model", ["nowhere", "./no/where", "/no/where", "a/b/c", "~no-such-user/x", "", "org/", "-x/y"]
)
def test_what_is_neither_folder_nor_hub_id_is_refused_without_asking_the_hub(model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a folder nor a Hub id such as openai/gpt-oss-20b"):
        resolve(model)


def test_an_address_is_refused_in_favour_of_the_id() -> None:
    with pytest.raises(UsageError, match="is an address; give the model's id alone, such as openai/gpt-oss-20b"):
        resolve("https://huggingface.co/openai/gpt-oss-20b/tree/main")


def test_a_file_and_a_folder_with_a_revision_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UsageError, match="is a file; give the folder"):
        resolve(str(tmp_path / "model.safetensors"))
    with pytest.raises(UsageError, match="has no revision 'v1'"):
        resolve(tmp_path, "v1")


def test_the_environment_decides_where_the_hub_is_and_no_framework_is_imported(tmp_path: Path) -> None:
    sample = write_sample("gpt-oss", tmp_path / "sample", overrides={"num_hidden_layers": 1})
    script = (
        "import sys\n"
        "from msport.cli import main\n"
        "try: main(['convert', 'org/model', '-o', sys.argv[1]])\n"
        "finally: assert not {'torch', 'mindspore', 'transformers'} & set(sys.modules)\n"
    )
    with serve({path.name: path.read_bytes() for path in sample.iterdir()}) as server:
        hub = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", script, str(tmp_path / "out")]
        child = subprocess.run(command, env={**os.environ, **hub}, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert f'"revision": "{COMMIT}"' in (tmp_path / "out" / "msport.json").read_text(encoding="utf-8")
    assert child.stderr == ""
