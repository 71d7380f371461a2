"""A checkpoint and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from msport.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from msport.hub.streaming import RemoteCheckpoint, Stream

# What a source opens as: files on disk, or ranges over the network with the same methods.
AnyCheckpoint: TypeAlias = Union[Checkpoint, "RemoteCheckpoint"]


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint in `folder`; `id` is its Hub id or the absolute folder, `revision` the Hub's commit if any.

    An id from ModelScope begins with ``modelscope:``. Of a streamed source, `folder` holds all but the weights, which
    `stream` reads over the network; it lives as long as `stream`. `checked` says how each file that lies in `folder`
    and was fetched was compared with what the Hub says of it: ``sha256``, ``git`` (the SHA-1 of its blob), ``no-hash``.
    """

    folder: Path
    id: str
    revision: str | None = None
    stream: Stream | None = None
    checked: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def fetched(self) -> dict[str, str]:
        """How each file that has been fetched so far was checked, as `checked` says; streamed shards among them."""
        return dict(self.checked) if self.stream is None else {**self.checked, **self.stream.checked}

    def open(self) -> AnyCheckpoint:
        """The checkpoint, its headers read and checked; raises CheckpointError, and HubError if it is streamed."""
        if self.stream is None:
            return open_checkpoint(self.folder)
        from msport.hub.streaming import RemoteCheckpoint  # brings an HTTP library, which a folder does not need

        return RemoteCheckpoint(self.stream)
