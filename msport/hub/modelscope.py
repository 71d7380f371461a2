"""Models on ModelScope, by the protocol of its own client (``modelscope_hub``, ``_legacy_api.py``, ``_download.py``).

The client itself is not used: it cannot read ranges, and it keeps its state in pickle files. Its environment variables
and its cache layout are used.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from msport.errors import HubError
from msport.errors import quote as quoted
from msport.hub.limits import Network
from msport.hub.listing import Hub, Listing, RemoteFile, hexadecimal, listed_nbytes, needed_entries, with_weights
from msport.hub.local_files import download_files, is_same
from msport.hub.source import Source, streamed
from msport.hub.streaming import open_stream
from msport.hub.transport import Transport

PREFIX = "modelscope:"
DEFAULT_REVISION = "master"
_ENDPOINT = "https://www.modelscope.cn"
_INTERNATIONAL_ENDPOINT = "https://www.modelscope.ai"


def stream(model: str, revision: str | None, network: Network) -> Source:
    """The model `model` at `revision`, read over the network unless the cache holds all of it, byte for byte.

    Raises HubError with the reason if ModelScope refuses.
    """
    listing = _list(model, revision, network)
    return _from_cache(model, revision, listing) or streamed(open_stream(listing, network))


def download(model: str, revision: str | None, network: Network) -> Source:
    """The model in ModelScope's cache, ``models/OWNER--NAME/snapshots/COMMIT``; what is missing is downloaded.

    Every file, also an existing one, is compared with ModelScope's SHA-256. An interrupted download resumes. Raises
    HubError, and OSError if the disk is full.
    """
    listing = _list(model, revision, network)
    if (source := _from_cache(model, revision, listing)) is not None:
        return source
    folder = _snapshot(model, listing.revision)
    checked = download_files(listing, listing.files, lambda file: folder / file.name, network)
    return Source(folder, listing.id, listing.revision, checked=checked)


def endpoint() -> str:
    """The address of ModelScope: ``MODELSCOPE_ENDPOINT``, the older ``MODELSCOPE_DOMAIN``, or its Chinese site."""
    address = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN", "").strip()
    if not address:
        international = os.environ.get("MODELSCOPE_PREFER_AI_SITE", "").strip().lower() in ("1", "true", "yes", "on")
        return _INTERNATIONAL_ENDPOINT if international else _ENDPOINT
    return (address if address.startswith(("http://", "https://")) else f"https://{address}").rstrip("/")


def _credentials() -> dict[str, str]:
    # Older servers need the cookie, newer ones the bearer token; the client sends both. Its saved login is a pickle
    # file, which could run any code, so it is not read.
    token = os.environ.get("MODELSCOPE_API_TOKEN", "").strip()
    return {"Authorization": f"Bearer {token}", "Cookie": f"m_session_id={token}"} if token else {}


def _list(model: str, revision: str | None, network: Network) -> Listing:
    hub = Hub(endpoint(), _credentials(), _explain)
    api = f"{endpoint()}/api/v1/models/{model}"
    with closing(Transport(hub, network)) as transport:
        commit = _commit(api, revision or DEFAULT_REVISION, transport)
        document = _ask(f"{api}/repo/files?{urlencode({'Revision': commit, 'Recursive': False})}", model, transport)
    entries = document.get("Files") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise HubError(f"{model}: {endpoint()} lists no files; check MODELSCOPE_ENDPOINT")
    files = tuple(_files(model, entries, f"{api}/repo?Revision={quote(commit, safe='')}&FilePath="))
    return Listing(f"{PREFIX}{model}", commit, with_weights(files, model), hub)


def _files(model: str, entries: list[Any], address: str) -> Iterator[RemoteFile]:
    for name, entry in needed_entries(entries, "Path"):
        nbytes = listed_nbytes(model, name, entry.get("Size"))
        url = address + quote(name, safe="")
        yield RemoteFile(model, name, nbytes, url, sha256=hexadecimal(entry.get("Sha256"), 64))


def _commit(api: str, revision: str, transport: Transport) -> str:
    """The commit of `revision`, or `revision` itself if ModelScope does not state a commit."""
    query = urlencode({"Ref": revision, "PageNumber": 1, "PageSize": 1})
    document = _ask(f"{api}/commits?{query}", f"{api.partition('/models/')[2]} at {revision!r}", transport)
    commits = document.get("Commit") if isinstance(document, dict) else None
    latest = commits[0] if isinstance(commits, list) and commits else None
    return hexadecimal(latest.get("Id"), 40) or revision if isinstance(latest, dict) else revision


def _ask(url: str, what: str, transport: Transport) -> Any:
    """The data of a response. ModelScope may also refuse with status 200 and its own error code."""
    answer = transport.document(url, what)
    if not isinstance(answer, dict) or answer.get("Success") is False or answer.get("Code", 200) != 200:
        message = answer.get("Message") if isinstance(answer, dict) else answer
        raise HubError(f"{what}: {endpoint()} refuses: {quoted(message)}; check the name and the revision")
    return answer.get("Data")


def _explain(status: int, headers: Any = None) -> str:
    if status in (401, 403):
        return f"is not public; ask for access at {endpoint()} and set MODELSCOPE_API_TOKEN"
    if status == 404:
        return (
            f"no such folder, and no public model or revision at {endpoint()}; check the name and the revision, or set"
            " MODELSCOPE_API_TOKEN"
        )
    return f"{endpoint()} answered with status {status}; try again later"


def _cache() -> Path:
    return Path(os.environ.get("MODELSCOPE_CACHE") or "~/.cache/modelscope").expanduser()


def _snapshot(model: str, revision: str) -> Path:
    return _cache() / "models" / model.replace("/", "--") / "snapshots" / revision


def _from_cache(model: str, revision: str | None, listing: Listing) -> Source | None:
    """A folder that msport or the client (of either generation) downloaded, if it equals ModelScope's listing."""
    owner, name = model.split("/")
    older = Path("models", owner, name.replace(".", "___"))
    commits = (listing.revision, revision or DEFAULT_REVISION)
    for folder in (*(_snapshot(model, commit) for commit in commits), _cache() / older, _cache() / "hub" / older):
        if all(is_same(folder / file.name, file) for file in listing.files):
            checked = {file.name: file.check for file in listing.files}
            return Source(folder, listing.id, listing.revision, checked=checked)
    return None
