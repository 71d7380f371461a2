"""Resolves MODEL: an existing folder, else the id of a model on a Hub."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path

from msport.errors import CheckpointError, UsageError, parameter
from msport.hub.limits import Network
from msport.hub.source import Source

# Each is a module here. It imports an HTTP library, which a folder does not need.
HUBS = ("huggingface", "modelscope")
DEFAULT_HUB = "huggingface"
# A manifest's source is on Hugging Face unless it begins with this.
_MODELSCOPE = "modelscope:"
# As in git. Caches name files after them, so no name may leave the cache folder.
_REVISION = re.compile(r"(?:[\w+@=-][\w.+@=-]*/)*[\w+@=-][\w.+@=-]*")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve(
    model: str | Path,
    revision: str | None = None,
    *,
    hub: str | None = None,
    stream: bool = False,
    network: Network | None = None,
) -> Source:
    """The folder that `model` names, or the model of that id on `hub` at `revision` (a branch, tag or commit).

    `hub` is one of `HUBS`, by default `DEFAULT_HUB`. For a folder, give neither hub nor revision.

    With `stream` the weights are read from the Hub, unless the Hub's cache on this machine holds all of them. Without
    it they are downloaded into that cache. ``modelscope:OWNER/NAME`` includes the hub. Raises UsageError if `model` is
    neither a folder nor an id, and HubError if the Hub refuses.
    """
    path = Path(os.path.expanduser(model))  # Path.expanduser raises RuntimeError for an unknown user
    if model and path.is_dir():
        if revision is not None:
            raise UsageError(
                f"{model}: is a folder, which has no revision {revision!r}; leave {parameter('revision')} out"
            )
        if hub is not None:
            raise UsageError(
                f"{model}: is a folder, which is on no hub; leave the source {hub!r} out, or go where no such folder is"
            )
        return Source(path, str(path.resolve()))
    if path.is_file():
        raise UsageError(f"{model}: is a file; give the folder that holds it, with its config.json")
    if hub not in (None, *HUBS):
        raise UsageError(f"source {hub!r} is not known; choose one of {', '.join(HUBS)}")
    if isinstance(model, str) and model.startswith(_MODELSCOPE):
        if hub not in (None, "modelscope"):
            raise UsageError(f"{model}: names ModelScope itself; leave the source {hub!r} out")
        hub, model = "modelscope", model.removeprefix(_MODELSCOPE)
    if isinstance(model, str) and "://" in model:
        raise UsageError(f"{model!r}: is an address; give the model's id alone, such as openai/gpt-oss-20b")
    if isinstance(model, Path) or not _HUB_ID.fullmatch(model):
        raise UsageError(f"{str(model)!r}: neither a folder nor a Hub id such as openai/gpt-oss-20b")
    if revision is not None and (_REVISION.fullmatch(revision) is None or ".." in revision):
        raise UsageError(f"{revision!r}: is no branch, tag or commit")
    fetch = getattr(import_module(f"msport.hub.{hub or DEFAULT_HUB}"), "stream" if stream else "download")
    source: Source = fetch(model, revision, network or Network())
    return source


def find_reference(reference: str | Path | None, source: str, revision: str | None) -> Source:
    """The checkpoint to compare a conversion with: `reference`, else the `source` and `revision` of its manifest.

    Raises CheckpointError if that source is a folder that no longer exists, else as `resolve`.
    """
    if reference is not None:
        return resolve(reference)
    remembered = Path(source)
    if remembered.is_absolute() and not remembered.is_dir():
        raise CheckpointError(
            f"{remembered}: the source of this conversion is gone; name the original by {parameter('reference')}"
        )
    return resolve(source, revision)
