"""Models on the Hugging Face Hub.

``huggingface_hub`` provides the Hub's address, the user's login (``HF_ENDPOINT``, ``HF_TOKEN``, a saved login) and the
content of its cache. It is not used for downloads: version 1.33 sends the token to other ports and from https to http,
no version limits how long it waits, and none compares what arrived with the hash that the Hub states.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msport.errors import HubError
from msport.hub.limits import GaveUpError, Network
from msport.hub.listing import Hub, Listing, RemoteFile, hexadecimal, listed_nbytes, needed_entries, with_weights
from msport.hub.local_files import download_files, is_complete, missing
from msport.hub.source import Source, streamed
from msport.hub.streaming import open_stream
from msport.hub.transport import Transport


def stream(repository: str, revision: str | None, network: Network) -> Source:
    """The model `repository` at `revision`, read over the network unless the cache holds all of it.

    Raises HubError with the reason if the Hub refuses.
    """
    found = _find(repository, revision, network)
    if isinstance(found, Source):
        return found
    return streamed(open_stream(found, network))


def download(repository: str, revision: str | None, network: Network) -> Source:
    """The snapshot of `repository` at `revision` in the Hugging Face cache; downloads what is missing.

    Downloaded files are compared with the Hub's hashes. Raises HubError if the Hub refuses or a file arrives damaged,
    and OSError if the disk is full.
    """
    found = _find(repository, revision, network)
    if isinstance(found, Source):
        return found
    storage = _storage(repository)
    folder = storage / "snapshots" / found.revision
    wanted = missing(folder, found.files)

    def place(file: RemoteFile) -> Path:
        name = file.sha256 or file.git_sha1
        return storage / "blobs" / name if name else folder / file.name

    checked = download_files(found, wanted, place, network)
    for file in wanted:
        _link(place(file), folder / file.name)
    if revision != found.revision:
        reference = storage / "refs" / (revision or "main")
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(found.revision)
    return Source(folder, repository, found.revision, checked=checked)


def _find(repository: str, revision: str | None, network: Network) -> Listing | Source:
    """The Hub's listing, or the cached snapshot if it is complete, or if the Hub cannot be reached."""
    from huggingface_hub import constants

    try:
        if constants.HF_HUB_OFFLINE:
            raise HubError(f"{repository}: is not in the cache, and HF_HUB_OFFLINE is set; unset it to download")
        listing = _list(repository, revision, network)
    except HubError as error:
        folder = _cached(repository, revision)
        if (constants.HF_HUB_OFFLINE or isinstance(error, GaveUpError)) and folder is not None and is_complete(folder):
            return Source(folder, repository, folder.name)
        if isinstance(error, GaveUpError):
            reason = f"no such folder, and {_endpoint()} cannot be reached ({error.fault})"
            raise HubError(f"{repository}: {reason}; check the name, the network and HF_ENDPOINT") from error
        raise
    folder = _storage(repository) / "snapshots" / listing.revision
    return listing if missing(folder, listing.files) else Source(folder, repository, listing.revision)


def _list(repository: str, revision: str | None, network: Network) -> Listing:
    from huggingface_hub.utils import build_hf_headers

    address = f"{_endpoint()}/api/models/{repository}"
    if revision is not None:
        address += f"/revision/{quote(revision, safe='')}"
    hub = Hub(_endpoint(), build_hf_headers(library_name="msport"), partial(_explain, repository))
    listed = replace(hub, explain=partial(_refusal, repository, revision))
    with closing(Transport(listed, network)) as transport:
        document = transport.document(f"{address}?blobs=true", repository)
    commit = hexadecimal(document.get("sha"), 40) if isinstance(document, dict) else None
    siblings = document.get("siblings") if isinstance(document, dict) else None
    if commit is None or not isinstance(siblings, list):
        raise HubError(f"{repository}: {_endpoint()} lists no files of a commit; check HF_ENDPOINT")
    return Listing(repository, commit, with_weights(_files(repository, commit, siblings), repository), hub)


def _files(repository: str, commit: str, siblings: list[Any]) -> Iterator[RemoteFile]:
    for name, sibling in needed_entries(siblings, "rfilename"):
        large = sibling.get("lfs")
        yield RemoteFile(
            repository,
            name,
            listed_nbytes(repository, name, sibling.get("size")),
            f"{_endpoint()}/{repository}/resolve/{commit}/{quote(name)}",
            sha256=hexadecimal(large.get("sha256"), 64) if isinstance(large, dict) else None,
            git_sha1=None if large else hexadecimal(sibling.get("blobId"), 40),
        )


def _storage(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE).expanduser() / str(repo_folder_name(repo_id=repository, repo_type="model"))


def _cached(repository: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, complete or not."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return None


def _link(blob: Path, path: Path) -> None:
    """Make `path`, in a snapshot, a link to the file `blob`, in one step: another download may make the same link."""
    if blob != path:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = blob.with_name(f"{blob.name}.{secrets.token_hex(8)}.incomplete")
        made.symlink_to(os.path.relpath(blob, path.parent))
        os.replace(made, path)


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT).rstrip("/")


def _explain(repository: str, status: int, headers: Any = None) -> str:
    """Why the Hub refuses a file."""
    if status in (401, 403):
        return f"is gated; ask for access at {_endpoint()}/{repository}, then run `hf auth login` or set HF_TOKEN"
    if status == 404:
        return "is not there any more; start again"
    return f"{_endpoint()} answered with status {status}; try again later"


def _refusal(repository: str, revision: str | None, status: int, headers: Any) -> str:
    """Why the Hub refuses a model."""
    code = headers.get("X-Error-Code")
    if code == "GatedRepo":
        return _explain(repository, 403)
    if code == "RevisionNotFound":
        return f"has no revision {revision!r}; give one of its branches, tags or commits"
    if status in (401, 403, 404):
        return f"no such folder, and no public repository at {_endpoint()}; check the name, or log in: `hf auth login`"
    return _explain(repository, status)
