from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import deque
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hub.conftest import FAST, HURRIED
from hub.hub_server import COMMIT, Answer, HubServer
from msport.checkpoint import open_checkpoint
from msport.convert import Options, convert_checkpoint, prepare, run
from msport.errors import CheckpointError, HubError
from msport.hub import AnyCheckpoint, Network, resolve
from msport.hub.streaming import RemoteCheckpoint

ALL_OF_MSPORT = "from msport.cli import main; main()"


def convert(model: str, output: Path, **options: object) -> dict[str, bytes]:
    """The files of a conversion; of the manifest what does not depend on where the model came from."""
    convert_checkpoint(model, output, **{"network": FAST, **options})
    return contents(output)


def contents(folder: Path) -> dict[str, bytes]:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files["msport.json"] = json.dumps(json.loads(files["msport.json"])["tensors"]).encode()
    return files


def weights_in(folder: Path, hub: HubServer) -> list[str]:
    """The files below `folder` that are a shard of `hub` by their name, their size, or as a part of one."""
    sizes = {len(content) for name, content in hub.files.items() if name.endswith(".safetensors")}
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix in (".safetensors", ".incomplete") or (path.is_file() and path.stat().st_size in sizes)
    ]


def spans(server: HubServer, name: str) -> list[tuple[int, int]]:
    """The byte ranges of a shard that were asked for, in order, without the first, which holds the header."""
    return sorted(request.range or (0, len(server.files[name])) for request in server.gets(name)[1:])


# Not mxfp4 as safetensors: of a folder the shards are then kept as they are, over a network they are cut anew.
@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"dtype": "mxfp4", "format": "ckpt"}], ids=str)
@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_streamed_it_is_byte_for_byte_what_a_folder_gives(
    hub: HubServer, cdn: HubServer, sample: Path, tmp_path: Path, source: str, options: dict[str, str]
) -> None:
    if source == "modelscope":
        hub.partial_status = cdn.partial_status = 200
    streamed = convert("org/model", tmp_path / "streamed", source=source, **options)
    assert streamed == convert(str(sample), tmp_path / "local", **options)
    manifest = json.loads((tmp_path / "streamed" / "msport.json").read_text(encoding="utf-8"))
    name = "org/model" if source == "huggingface" else "modelscope:org/model"
    assert (manifest["source"], manifest["revision"]) == (name, COMMIT)


def test_no_byte_of_a_slab_is_asked_for_twice(hub: HubServer, cdn: HubServer, tmp_path: Path) -> None:
    convert("org/model", tmp_path / "out")
    shards = [name for name in hub.files if name.endswith(".safetensors")]
    assert len(shards) > 1
    for name in shards:
        ranges = spans(cdn, name)
        assert all(last <= first for (_, last), (first, _) in pairwise(ranges))


def test_the_manifest_says_how_each_file_was_checked(hub: HubServer, tmp_path: Path) -> None:
    manifest = convert_checkpoint("org/model", tmp_path / "out", network=FAST)
    assert set(manifest.fetched) == set(hub.files)
    assert {manifest.fetched[name] for name in ("config.json", "tokenizer_config.json")} == {"git"}
    assert manifest.fetched["tokenizer.json"] == "sha256"
    assert convert_checkpoint(tmp_path / "out", tmp_path / "again").fetched == {}


def test_an_interrupted_conversion_asks_for_the_rest_alone(
    hub: HubServer, cdn: HubServer, sample: Path, tmp_path: Path
) -> None:
    def asked(output: str) -> int:
        for server in (hub, cdn):
            server.seen.clear()
        convert_checkpoint("org/model", tmp_path / output, network=replace(FAST, window_nbytes=1), workers=1)
        return sum(last - first for name in hub.files if "-of-" in name for first, last in spans(cdn, name))

    everything = asked("undisturbed")
    name = max(name for name in hub.files if name.endswith(".safetensors"))
    cdn.answers[name] = deque([Answer(), *[Answer(status=500)] * 10])
    with pytest.raises(HubError, match="gave up"):
        asked("interrupted")
    cdn.answers.clear()
    assert 0 < asked("interrupted") < everything
    assert contents(tmp_path / "interrupted") == contents(tmp_path / "undisturbed")


def test_faults_on_the_way_change_nothing(hub: HubServer, cdn: HubServer, sample: Path, tmp_path: Path) -> None:
    for name in hub.files:
        faults = [Answer(cut=100), Answer(status=500), Answer(), Answer(shift=1), Answer(), Answer(stall=5)]
        (cdn if name.endswith(".safetensors") else hub).answers[name] = deque(faults)
    hub.statuses.extend([(429, {"Retry-After": "0"}), (503, {})])
    assert convert("org/model", tmp_path / "streamed", network=HURRIED) == convert(str(sample), tmp_path / "local")


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_weights_never_lie_on_the_disk(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen = []
    output = tmp_path / "deep" / "out"

    def look(step: object) -> None:
        seen.extend(name for name in weights_in(tmp_path, hub) if not name.startswith("deep/"))

    convert_checkpoint("org/model", output, source=source, network=FAST, progress=look)
    assert seen == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("msport-")] == []


def test_a_plan_takes_headers_and_small_files_alone(hub: HubServer, cdn: HubServer, tmp_path: Path) -> None:
    conversion = prepare("org/model", tmp_path / "out", Options(network=FAST))
    for name in hub.files:
        if name.endswith(".safetensors"):
            assert [request.range for request in cdn.gets(name)] == [(0, 1 << 17)]
    assert conversion.source.checked == {
        name: "sha256" if name == "tokenizer.json" else "git" for name in hub.files if not name.endswith(".safetensors")
    }


def test_the_small_files_are_removed_with_their_source(hub: HubServer) -> None:
    source = resolve("org/model", stream=True, network=FAST)
    folder = source.folder
    assert (folder / "config.json").is_file()
    assert folder.parts[-2:] == ("org", "model")
    del source
    assert not folder.exists()


def test_a_whole_snapshot_in_the_cache_is_used(hub: HubServer, sample: Path, tmp_path: Path) -> None:
    resolve("org/model")
    hub.seen.clear()
    assert convert("org/model", tmp_path / "cached") == convert(str(sample), tmp_path / "local")
    assert {request.path.partition("?")[0] for request in hub.seen} == {"/api/models/org/model"}


def test_a_snapshot_with_a_hole_is_not(hub: HubServer) -> None:
    folder = resolve("org/model").folder
    next(folder.glob("*.safetensors")).unlink()
    assert resolve("org/model", stream=True, network=FAST).stream is not None


def test_versions_come_from_the_hub(hub: HubServer) -> None:
    with resolve("org/model", stream=True, network=FAST).open() as checkpoint:
        versions = {path.name: header.version for path, header in checkpoint.headers.items()}
    assert versions == {name: f"sha256:{hub.sha256(name)}" for name in hub.files if name.endswith(".safetensors")}


def test_a_shard_that_changes_after_the_plan_is_noticed(hub: HubServer, tmp_path: Path) -> None:
    conversion = prepare("org/model", tmp_path / "out", Options(network=FAST))
    hub.etags |= dict.fromkeys(hub.files, "another")
    with pytest.raises(HubError, match=r"org/model/model-.* the source changed while it was read: it had ETag"):
        run(conversion)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_a_small_file_that_is_damaged_is_refused(hub: HubServer, name: str) -> None:
    hub.hash_of[name] = "0" * (64 if name == "tokenizer.json" else 40)
    with pytest.raises(HubError, match=f"^org/model/{name}: its hash [0-9a-f]+ is not 0+, which the Hub states"):
        resolve("org/model", stream=True, network=FAST)


def open_stream(network: Network = FAST) -> RemoteCheckpoint:
    checkpoint = resolve("org/model", stream=True, network=network).open()
    assert isinstance(checkpoint, RemoteCheckpoint)
    return checkpoint


def read_all(checkpoint: AnyCheckpoint, names: list[str]) -> None:
    for name in names:
        checkpoint.read_into(name, 0, np.empty(checkpoint.tensors[name].nbytes, np.uint8))


def test_a_shard_read_in_order_is_compared_with_its_hash(hub: HubServer) -> None:
    source = resolve("org/model", stream=True, network=replace(FAST, window_nbytes=1))
    with source.open() as checkpoint:
        first, second = list(checkpoint.headers)[:2]
        read_all(checkpoint, list(checkpoint.headers[first].tensors))
        read_all(checkpoint, list(checkpoint.headers[second].tensors)[::-1])
        assert source.fetched[first.name] == "sha256"
        assert source.fetched[second.name] == "length"


def test_a_shard_read_in_order_that_is_damaged_is_refused(hub: HubServer) -> None:
    name = min(name for name in hub.files if name.endswith(".safetensors"))
    hub.hash_of[name] = "0" * 64
    with open_stream() as checkpoint, pytest.raises(HubError, match=f"^org/model/{name}: its hash"):
        read_all(checkpoint, list(checkpoint.headers[checkpoint.folder / name].tensors))


def test_it_reads_what_a_folder_reads(hub: HubServer, sample: Path) -> None:
    with open_stream() as streamed, open_checkpoint(sample) as local:
        assert streamed.tensors == local.tensors
        assert {name: path.name for name, path in streamed.files.items()} == {
            name: path.name for name, path in local.files.items()
        }
        for name, tensor in streamed.tensors.items():
            buffers = [np.zeros(tensor.nbytes - tensor.nbytes // 3, np.uint8) for _ in range(2)]
            for checkpoint, buffer in zip((streamed, local), buffers, strict=True):
                checkpoint.read_into(name, tensor.nbytes // 3, buffer)
            assert np.array_equal(*buffers)
        with pytest.raises(CheckpointError, match="holds no tensor 'none'"):
            streamed.read_into("none", 0, np.empty(1, np.uint8))
        with pytest.raises(IndexError):
            streamed.read_into(name, 1, np.empty(tensor.nbytes, np.uint8))
        with pytest.raises(ValueError, match="C-contiguous"):
            streamed.read_into(name, 0, np.empty((2, 2), np.uint8)[:, :1])


def test_names_never_leave_the_folder(hub: HubServer, tmp_path: Path) -> None:
    strange = ["../evil.json", "/etc/passwd", "sub/config.json", "tokenizer\\x.json", ".tokenizer.json", "model/../a"]
    hub.files |= dict.fromkeys(strange, b"{}")
    source = resolve("org/model", stream=True, network=FAST)
    assert {path.name for path in source.folder.rglob("*")} == {
        name for name in hub.files if name not in strange and not name.endswith(".safetensors")
    }


INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({INDEX: b'{"weight_map": {"a": "../x.safetensors"}}'}, "not plain file names in its folder"),
        ({INDEX: b'{"weight_map": {"a": "absent.safetensors"}}'}, "absent.safetensors: no such file in org/model"),
        ({INDEX: None}, "holds no checkpoint"),
        ({INDEX: None, SINGLE: b""}, "too few for a safetensors file"),
        ({INDEX: None, SINGLE: b"\xff" * 100}, "not a safetensors file: its header would be"),
        ({INDEX: None, SINGLE: (10**6).to_bytes(8, "little") + b"{}"}, "truncated: the header ends at"),
        ({INDEX: None, SINGLE: (2).to_bytes(8, "little") + b"{}x"}, "has bytes after its last tensor"),
    ],
)
def test_a_hostile_hub_meets_the_same_checks_as_a_folder(
    hub: HubServer, files: dict[str, bytes | None], message: str
) -> None:
    for name, content in files.items():
        if content is None:
            del hub.files[name]
        else:
            hub.files[name] = content
    with pytest.raises(CheckpointError, match=message):
        resolve("org/model", stream=True, network=FAST).open()


def test_a_header_longer_than_the_first_request_is_fetched_to_its_end(hub: HubServer, sample: Path) -> None:
    for name in [name for name in hub.files if "safetensors" in name]:
        del hub.files[name]
    header = json.dumps({"__metadata__": {"padding": "x" * 300_000}}).encode()
    hub.files[SINGLE] = len(header).to_bytes(8, "little") + header
    with resolve("org/model", stream=True, network=FAST).open() as checkpoint:
        (loaded,) = checkpoint.headers.values()
    assert loaded.metadata == {"padding": "x" * 300_000}
    assert [request.range for request in hub.gets(SINGLE)] == [(0, 1 << 17), (1 << 17, len(header) + 8)]


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("org/gated", None, "is gated; ask for access at http://.*/org/gated, then run `hf auth login`"),
        ("org/missing", None, "no such folder, and no public repository at http://"),
        ("org/model", "v9", "has no revision 'v9'; give one of its branches, tags or commits"),
        ("org/broken", None, "no such folder, and http://.* cannot be reached .*answered with status 500"),
    ],
)
def test_what_the_hub_refuses_is_explained(hub: HubServer, model: str, revision: str | None, message: str) -> None:
    with pytest.raises(HubError, match=message) as error:
        resolve(model, revision, stream=True, network=FAST)
    assert "\n" not in str(error.value)


def test_a_repository_without_safetensors_is_refused(hub: HubServer) -> None:
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"", "original/model.safetensors": b""}
    with pytest.raises(HubError, match=r"^org/model: has no model\*.safetensors; choose a repository that ships"):
        resolve("org/model", stream=True, network=FAST)


def environment_for(server: HubServer, home: Path) -> dict[str, str]:
    home.mkdir(exist_ok=True)
    return {
        **os.environ,
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_XET": "1",
        "MODELSCOPE_ENDPOINT": server.url,
        "MODELSCOPE_CACHE": str(home / "modelscope"),
        "TMPDIR": str(home),
    }


def run_msport(server: HubServer, home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ALL_OF_MSPORT, *arguments]
    settings = {**environment_for(server, home), **environment}
    return subprocess.run(command, env=settings, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_from_the_command_line_only_the_output_is_left(
    hub: HubServer, cdn: HubServer, sample: Path, tmp_path: Path, source: str
) -> None:
    output = tmp_path / "out"
    tokens = {"HF_TOKEN": "hf_secret", "MODELSCOPE_API_TOKEN": "secret"}
    child = run_msport(
        hub, tmp_path / "home", "convert", "org/model", "--source", source, "-o", str(output), "--verify", **tokens
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert weights_in(tmp_path / "home", hub) == []
    assert not list((tmp_path / "home").glob("msport-*"))
    assert contents(output) == convert(str(sample), tmp_path / "local")
    expected = f"Bearer {tokens['HF_TOKEN' if source == 'huggingface' else 'MODELSCOPE_API_TOKEN']}"
    sent = {
        value
        for request in hub.seen
        if "/org/model" in request.path  # huggingface_hub asks for other things too
        for name, value in request.headers.items()
        if name.lower() == "authorization"
    }
    assert sent == {expected}
    assert not any({"authorization", "cookie"} & {name.lower() for name in request.headers} for request in cdn.seen)


def test_from_the_command_line_a_dry_run_writes_nothing(hub: HubServer, tmp_path: Path) -> None:
    child = run_msport(hub, tmp_path / "home", "convert", "org/model", "--dry-run", "-o", str(tmp_path / "out"))
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("org/model: GptOssForCausalLM to bfloat16")
    assert list(tmp_path.rglob("*.*")) == []


@pytest.mark.parametrize("before", [[], [Answer()]], ids=["headers", "weights"])
def test_ctrl_c_does_not_wait_for_a_network_that_says_nothing(
    hub: HubServer, tmp_path: Path, before: list[Answer]
) -> None:
    for name in hub.files:
        if name.endswith(".safetensors"):
            hub.answers[name] = deque([*before, *[Answer(stall=10)] * 5])
    command = [sys.executable, "-c", ALL_OF_MSPORT, "convert", "org/model", "-o", str(tmp_path / "out")]
    child = subprocess.Popen(command, env=environment_for(hub, tmp_path / "home"), stderr=subprocess.PIPE, text=True)
    try:
        assert hub.stalled.wait(600)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=100)  # msport itself would wait for five times 30 s
    finally:
        child.kill()
    assert child.returncode in (1, 130), errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "home").glob("msport-*"))


def test_kept_sources_serve_when_offline(hub: HubServer, sample: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = ("convert", "org/model", "-o")
    child = run_msport(hub, home, *arguments, str(tmp_path / "none"), HF_HUB_OFFLINE="1")
    assert child.returncode == 2
    assert child.stderr == (
        "msport: error: org/model: is not in the cache, and HF_HUB_OFFLINE is set; unset it to download\n"
    )
    assert run_msport(hub, home, *arguments, str(tmp_path / "kept"), "--keep-source").returncode == 0
    assert len([name for name in weights_in(home, hub) if "snapshots" in name]) >= 2
    hub.seen.clear()
    child = run_msport(hub, home, *arguments, str(tmp_path / "offline"), HF_HUB_OFFLINE="1")
    assert (child.returncode, child.stderr) == (0, "")
    assert hub.seen == []
    assert contents(tmp_path / "offline") == contents(tmp_path / "kept") == convert(str(sample), tmp_path / "local")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
def test_what_the_client_downloaded_is_compared_with_its_hash(hub: HubServer, name: str) -> None:
    right = hub.files[name]
    source = resolve("org/model")
    assert source.checked[name] == ("sha256" if name == "tokenizer.json" else "git")
    assert set(source.checked) == set(hub.files)
    assert resolve("org/model").checked == {}
    (source.folder / name).resolve().unlink()
    hub.hash_of[name] = "0" * (64 if name == "tokenizer.json" else 40)
    with pytest.raises(HubError, match=f"^org/model/{name}: its hash"):
        resolve("org/model")
    assert not (source.folder / name).exists()
    assert hub.files[name] == right
