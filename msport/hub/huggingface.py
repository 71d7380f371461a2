"""Snapshots from the Hugging Face Hub.

Its own client does the work, and so honours the cache, ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

from msport.errors import HubError
from msport.hub.source import Source

NEEDED_FILES = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# `original/` and `metal/` hold the same weights once more, in other layouts.
_SUBFOLDERS = "*/*"


def download(repository: str, revision: str | None = None) -> Source:
    """The snapshot of `repository` at `revision` in the Hugging Face cache, of which what is missing is downloaded.

    Raises HubError that says why the Hub does not give it out, and OSError if the disk is full.
    """
    from huggingface_hub import snapshot_download

    _quieten()
    try:
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(NEEDED_FILES), ignore_patterns=[_SUBFOLDERS]
        )
    except Exception as error:  # the client's own, and those of whichever HTTP library it uses
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise HubError(f"{repository}: {_reason(error, repository, revision)}") from error
    return Source(Path(folder), repository, Path(folder).name)


def _quieten() -> None:
    """Leave stderr to the one line of an error, and to progress where someone watches it."""
    from huggingface_hub.utils import disable_progress_bars, logging

    if "HF_HUB_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()


def _reason(error: Exception, repository: str, revision: str | None) -> str:
    from huggingface_hub import constants, errors

    endpoint = constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        return f"is gated; ask for access at {endpoint}/{repository}, then run `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"no such folder, and no public repository at {endpoint}; check the name, or log in: `hf auth login`"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {revision!r}; give one of its branches, tags or commits"
    if constants.HF_HUB_OFFLINE:
        return "is not in the cache, and HF_HUB_OFFLINE is set; unset it to download"
    failure = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
    if isinstance(failure, errors.HfHubHTTPError):
        return f"{endpoint} answered with status {failure.response.status_code}; try again later"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return f"no such folder, and {endpoint} cannot be reached; check the name, the network and HF_ENDPOINT"
    return f"the download failed ({type(error).__name__}: {error}); try again, what has arrived is kept"
