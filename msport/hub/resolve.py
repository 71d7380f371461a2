"""What a user means by MODEL: an existing folder, else a Hub id."""

from __future__ import annotations

import re
from pathlib import Path

from msport.errors import UsageError
from msport.hub.huggingface import download
from msport.hub.source import Source

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve(model: str | Path, revision: str | None = None) -> Source:
    """The folder that `model` names, or the Hub repository `model` at `revision` (a branch, tag or commit).

    A snapshot is downloaded into the Hugging Face cache, or found there. Raises UsageError if `model` is neither, and
    HubError if the Hub does not give it out.
    """
    path = Path(model).expanduser()
    if model and path.is_dir():
        if revision is not None:
            raise UsageError(f"{model}: is a folder, which has no revision {revision!r}; leave --revision out")
        return Source(path, str(path.resolve()))
    if path.is_file():
        raise UsageError(f"{model}: is a file; give the folder that holds it, with its config.json")
    if isinstance(model, Path) or not _HUB_ID.fullmatch(model):
        raise UsageError(f"{str(model)!r}: no such folder, nor a Hub id such as openai/gpt-oss-20b")
    return download(model, revision)
