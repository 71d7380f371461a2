from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from hub.conftest import FAST, HURRIED
from hub.hub_server import COMMIT, Answer, HubServer
from msport.errors import HubError, UsageError
from msport.hub import Network, Source, resolve
from msport.hub.modelscope import endpoint


def download(revision: str | None = None, network: Network = FAST) -> Source:
    return resolve("org/model", revision, hub="modelscope", network=network)


def snapshot(tmp_path: Path, revision: str = COMMIT) -> Path:
    return tmp_path / "cache" / "modelscope" / "models" / "org--model" / "snapshots" / revision


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_download_holds_what_modelscope_lists_and_is_checked(hub: HubServer, cdn: HubServer, tmp_path: Path) -> None:
    wanted = dict(hub.files)
    hub.files |= {"README.md": b"", "original/config.json": b"{}", "../tokenizer.json": b"{}"}
    hub.partial_status = cdn.partial_status = 200
    source = download()
    assert source == Source(snapshot(tmp_path), "modelscope:org/model", COMMIT)
    assert source.checked == dict.fromkeys(wanted, "sha256")
    assert {path.name: path.read_bytes() for path in source.folder.iterdir()} == wanted
    hub.seen.clear()
    cdn.seen.clear()
    assert download() == source
    assert not any("FilePath" in request.path for request in (*hub.seen, *cdn.seen))


def test_the_id_in_a_manifest_says_which_hub_it_is_from(hub: HubServer, tmp_path: Path) -> None:
    source = resolve("modelscope:org/model", COMMIT, network=FAST)
    assert (source.id, source.revision, source.folder) == ("modelscope:org/model", COMMIT, snapshot(tmp_path))


def test_an_interrupted_download_resumes(hub: HubServer, tmp_path: Path) -> None:
    name = max(hub.files, key=lambda name: len(hub.files[name]))
    put(snapshot(tmp_path), {f"{name}.incomplete": hub.files[name][:1000]})
    assert (download().folder / name).read_bytes() == hub.files[name]
    assert [request.range for request in hub.gets(name)] == [(1000, len(hub.files[name]))]
    assert not list(snapshot(tmp_path).glob("*.incomplete"))


def test_faults_on_the_way_change_nothing(hub: HubServer) -> None:
    for name in hub.files:
        hub.answers[name] = deque([Answer(cut=50), Answer(status=500), Answer(stall=5)])
    hub.statuses.extend([(429, {"Retry-After": "0"}), (503, {})])
    source = download(network=HURRIED)
    assert {path.name: path.read_bytes() for path in source.folder.iterdir()} == hub.files


@pytest.mark.parametrize("partial", [b"", b"rubbish"])
def test_what_arrives_damaged_is_refused_and_removed(hub: HubServer, tmp_path: Path, partial: bytes) -> None:
    hub.hash_of["config.json"] = "0" * 64
    put(snapshot(tmp_path), {"config.json.incomplete": partial})
    with pytest.raises(HubError, match=r"org/model/config.json: its hash [0-9a-f]+ is not 0+, which the Hub states"):
        download()
    assert not list(snapshot(tmp_path).glob("config.json*"))


@pytest.mark.parametrize("folder", ["models/org--model/snapshots/master", "models/org/model", "hub/models/org/model"])
def test_what_the_client_has_downloaded_is_used(hub: HubServer, tmp_path: Path, folder: str) -> None:
    cached = put(tmp_path / "cache" / "modelscope" / folder, hub.files)
    assert download().folder == cached
    assert resolve("org/model", hub="modelscope", stream=True, network=FAST).folder == cached
    assert not any("FilePath" in request.path for request in hub.seen)


def test_what_the_client_has_downloaded_is_not_used_if_it_is_another_version(hub: HubServer, tmp_path: Path) -> None:
    cached = put(tmp_path / "cache" / "modelscope" / "models/org/model", hub.files)
    (cached / "config.json").write_bytes(hub.files["config.json"][::-1])
    assert download().folder == snapshot(tmp_path)


def test_the_token_is_sent_as_the_client_sends_it(
    hub: HubServer, cdn: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", " ms-secret\n")
    resolve("org/model", hub="modelscope", stream=True, network=FAST).open()
    assert {(request.headers["Authorization"], request.headers["Cookie"]) for request in hub.seen} == {
        ("Bearer ms-secret", "m_session_id=ms-secret")
    }
    assert cdn.seen
    assert not any({"Authorization", "Cookie"} & set(request.headers) for request in cdn.seen)


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({}, "https://www.modelscope.cn"),
        ({"MODELSCOPE_PREFER_AI_SITE": "true"}, "https://www.modelscope.ai"),
        ({"MODELSCOPE_DOMAIN": "example.cn"}, "https://example.cn"),
        ({"MODELSCOPE_DOMAIN": "example.cn", "MODELSCOPE_ENDPOINT": "http://other.cn/"}, "http://other.cn"),
    ],
)
def test_the_environment_says_where_modelscope_is(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], address: str
) -> None:
    for name in ("MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN", "MODELSCOPE_PREFER_AI_SITE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert endpoint() == address


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("org/missing", None, "^org/missing at 'master': no such folder, and no public model or revision at http://"),
        ("org/model", "v9", "^org/model at 'v9': no such folder, and no public model or revision"),
    ],
)
def test_what_modelscope_refuses_is_explained(
    hub: HubServer, model: str, revision: str | None, message: str, stream: bool
) -> None:
    with pytest.raises(HubError, match=message) as error:
        resolve(model, revision, hub="modelscope", stream=stream, network=FAST)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "message"), [(401, "is not public; ask for access at"), (418, "answered with status 418; try again")]
)
def test_other_refusals(hub: HubServer, status: int, message: str) -> None:
    hub.statuses.append((status, {}))
    with pytest.raises(HubError, match=message):
        download()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"Code": 10990101, "Message": "not\\nfound", "Success": false}', r"refuses: 'not\\nfound'; check the name"),
        (b"<html>", "is no document"),
        (b"[]", "refuses"),
    ],
)
def test_answers_that_say_no_in_other_ways(hub: HubServer, body: bytes, message: str) -> None:
    hub.api_body = body
    with pytest.raises(HubError, match=message) as error:
        download()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:9", "^org/model at 'master': the connection failed; gave up after 3 attempts"),
        ("http://", "is not a plain address, .*; check the endpoint"),
    ],
)
def test_an_invalid_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch, address: str, message: str) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
    with pytest.raises(HubError, match=message):
        download()


def test_an_unknown_hub_is_refused() -> None:
    with pytest.raises(UsageError, match="source 'github' is not known; choose one of huggingface, modelscope"):
        resolve("org/model", hub="github")


def test_the_real_client_downloads_the_same_from_the_same_server(hub: HubServer, tmp_path: Path) -> None:
    """That the server of these tests speaks ModelScope's protocol, and that both agree on the layout of the cache."""
    client = pytest.importorskip("modelscope_hub")
    config = client.HubConfig(endpoint=hub.url, cache_dir=tmp_path / "cache" / "modelscope", config_dir=tmp_path / "c")
    folder = client.HubApi(config=config).download_repo("org/model", "model", revision=COMMIT)
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == hub.files
    hub.seen.clear()
    assert download().folder == Path(folder)
    assert not any("FilePath" in request.path for request in hub.seen)
