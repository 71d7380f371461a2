"""Models on the Hugging Face Hub.

Its own client says what there is, where, and who may have it, and so honours ``HF_ENDPOINT``, ``HF_TOKEN``, a saved
login, ``HF_HUB_OFFLINE`` and the cache. Whole snapshots are its business too; only ranges are msport's own.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

from msport.errors import HubError
from msport.hub.files import check_file, has_all
from msport.hub.listing import NEEDED_FILES, Listing, RemoteFile, hexadecimal, is_needed, needed
from msport.hub.network import PASSING_STATUSES, Effort, Network, TransientError, parse_retry_after
from msport.hub.source import Source
from msport.hub.streaming import open_stream

# `original/` and `metal/` hold the same weights once more, in other layouts.
_PATTERNS: dict[str, Any] = {"allow_patterns": list(NEEDED_FILES), "ignore_patterns": ["*/*"]}


def stream(repository: str, revision: str | None, network: Network) -> Source:
    """The model `repository` at `revision`, read over the network unless the cache holds all of it.

    Raises HubError that says why the Hub does not give it out.
    """
    _quieten()
    try:
        info = _info(repository, revision, network)
    except Exception as error:  # the client's own, and those of whichever HTTP library it uses
        if isinstance(error, HubError) or not _is_unreachable(error):
            raise _refused(error, repository, revision) from error
        folder = _cached(repository, revision)
        if folder is None or not has_all(folder):
            raise _refused(error, repository, revision) from error
        return Source(folder, repository, folder.name)
    listing = _listing(repository, info)
    folder = _cached(repository, listing.revision)
    if folder is not None and has_all(folder, listing.files):
        return Source(folder, repository, listing.revision)
    return open_stream(listing, network, lambda status, headers: _explain(status, headers, repository))


def download(repository: str, revision: str | None, network: Network) -> Source:
    """The snapshot of `repository` at `revision` in the Hugging Face cache, of which what is missing is downloaded.

    What was downloaded is compared with the hashes that the Hub states. Raises HubError that says why the Hub does not
    give it out or what arrived damaged, and OSError if the disk is full.
    """
    from huggingface_hub import snapshot_download

    _quieten()
    before = _cached(repository, revision)
    present = {path for path in before.iterdir() if path.exists()} if before is not None else set()
    try:
        folder = Path(snapshot_download(repository, revision=revision, **_PATTERNS))
        fresh = [path for path in sorted(folder.iterdir()) if path not in present and is_needed(path.name)]
        files = _files(repository, _info(repository, folder.name, network)) if fresh else []
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise _refused(error, repository, revision) from error
    known = {file.name: file for file in files}
    checked = {path.name: check_file(path, known[path.name]) for path in fresh if path.name in known}
    return Source(folder, repository, folder.name, checked=checked)


def _info(repository: str, revision: str | None, network: Network) -> Any:
    """What the Hub knows of a model; a Hub that is overloaded is asked again."""
    from huggingface_hub import HfApi, errors

    effort = Effort(network, repository, time.sleep)
    while True:
        try:
            return HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=network.stall_timeout)
        except errors.HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status not in PASSING_STATUSES:
                raise
            wait = parse_retry_after(error.response.headers.get("Retry-After"))
            effort.failed(TransientError(f"{_endpoint()} answered with status {status}", wait))


def _listing(repository: str, info: Any) -> Listing:
    from huggingface_hub.utils import build_hf_headers

    files = needed(_files(repository, info), repository)
    return Listing(repository, info.sha, files, _endpoint(), build_hf_headers(library_name="msport"))


def _files(repository: str, info: Any) -> list[RemoteFile]:
    from huggingface_hub import hf_hub_url

    return [
        RemoteFile(
            repository,
            sibling.rfilename,
            sibling.size,
            hf_hub_url(repository, sibling.rfilename, revision=info.sha),
            sha256=hexadecimal(sibling.lfs and sibling.lfs.sha256, 64),
            git_sha1=None if sibling.lfs else hexadecimal(sibling.blob_id, 40),
        )
        for sibling in info.siblings or ()
        if is_needed(sibling.rfilename) and isinstance(sibling.size, int)
    ]


def _cached(repository: str, revision: str | None) -> Path | None:
    """The snapshot in the cache, which older clients also give if it is not whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, **_PATTERNS))
    except (LocalEntryNotFoundError, ValueError):  # ValueError: not an id that the client accepts
        return None


def _quieten() -> None:
    """Leave stderr to the one line of an error, and to progress where someone watches it."""
    from huggingface_hub.utils import disable_progress_bars, logging

    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _is_unreachable(error: Exception) -> bool:
    """Whether the Hub did not answer at all, in contrast to refusing."""
    from huggingface_hub import errors

    return not isinstance(error, (errors.HfHubHTTPError, errors.HFValidationError))


def _refused(error: Exception, repository: str, revision: str | None) -> HubError:
    if isinstance(error, HubError):
        return error
    return HubError(f"{repository}: {_reason(error, repository, revision)}")


def _explain(status: int, headers: Any, repository: str) -> str:
    if status in (401, 403):
        return _gated(repository)
    if status == 404:
        return "is not there any more; start again"
    return f"{_endpoint()} answered with status {status}; try again later"


def _gated(repository: str) -> str:
    return f"is gated; ask for access at {_endpoint()}/{repository}, then run `hf auth login` or set HF_TOKEN"


def _reason(error: Exception, repository: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    endpoint = _endpoint()
    if isinstance(error, errors.GatedRepoError):
        return _gated(repository)
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such folder, and no public repository at {endpoint}; check the name, or log in: `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}; give one of its branches, tags or commits"
    if constants.HF_HUB_OFFLINE:
        return "is not in the cache, and HF_HUB_OFFLINE is set; unset it to download"
    failure = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if isinstance(failure, errors.HfHubHTTPError):
        return f"{endpoint} answered with status {failure.response.status_code}; try again later"
    if isinstance(error, errors.HFValidationError):
        return f"is not a Hub id ({error})"
    if isinstance(error, errors.LocalEntryNotFoundError) or _is_no_connection(error):
        return f"no such folder, and {endpoint} cannot be reached; check the name, the network and HF_ENDPOINT"
    return f"the download failed ({type(error).__name__}: {error}); try again, what has arrived is kept"


def _is_no_connection(error: Exception) -> bool:
    # requests' and httpx' classes for it: the client uses the one up to version 0.36, the other from 1.0 on.
    return any(kind.__name__ in ("ConnectionError", "Timeout", "TransportError") for kind in type(error).__mro__)
