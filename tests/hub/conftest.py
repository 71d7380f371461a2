from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hub.hub_server import HubServer, serve
from msport.hub import Network

# Hardly waits between attempts, and never so in a hurry that a busy machine looks like a broken network.
FAST = Network(connect_timeout=60, stall_timeout=60, retries=3, first_delay=0.001, longest_delay=0.002, patience=5)
# For what waits until a stall is noticed. On a busy machine more may look like one, and is asked for once more.
HURRIED = replace(FAST, stall_timeout=0.5)


@pytest.fixture
def hub(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server that has `sample`, and both Hubs' clients pointed at it."""
    with serve({path.name: path.read_bytes() for path in sample.iterdir()}) as server:
        point_clients_at(server.url, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture
def cdn(hub: HubServer) -> Iterator[HubServer]:
    """The server that the weights of `hub` are redirected to, on another port."""
    with serve(hub.files) as server:
        hub.cdn = server
        yield server


def point_clients_at(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", url)
    for module in (constants, file_download):  # the first from huggingface_hub 1.0 on, the second before
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "huggingface"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", url)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(cache / "modelscope"))
