"""What a user means by MODEL: an existing folder, else the id of a model on a Hub."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path

from msport.errors import UsageError, parameter
from msport.hub.network import Network
from msport.hub.source import Source

# Each is a module here, and brings an HTTP library, which a folder does not need.
HUBS = ("huggingface", "modelscope")
DEFAULT_HUB = "huggingface"
# A manifest's source is Hugging Face's unless it begins so.
_MODELSCOPE = "modelscope:"
# As git has them; a cache names files after them, so none may lead out of it.
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

    `hub` is one of `HUBS`, by default `DEFAULT_HUB`; no hub and no revision may be named for a folder.

    With `stream` the weights stay on the Hub, to be read from there, unless the Hub's cache on this machine holds them
    all; otherwise they are downloaded into that cache. ``modelscope:OWNER/NAME`` names its hub, as `hub` may, too.
    Raises UsageError if `model` is neither, and HubError if the Hub does not give it out.
    """
    path = Path(os.path.expanduser(model))  # Path.expanduser raises RuntimeError for a user that is not there
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
        raise UsageError(f"{str(model)!r}: no such folder, nor a Hub id such as openai/gpt-oss-20b")
    if revision is not None and (_REVISION.fullmatch(revision) is None or ".." in revision):
        raise UsageError(f"{revision!r}: is no branch, tag or commit")
    fetch = getattr(import_module(f"msport.hub.{hub or DEFAULT_HUB}"), "stream" if stream else "download")
    source: Source = fetch(model, revision, network or Network())
    return source
