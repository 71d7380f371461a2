"""A checkpoint and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from msport.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:  # imports an HTTP library, which a folder does not need
    from msport.hub.streaming import RemoteCheckpoint, Stream

# A source opens as files on disk, or as ranges over the network with the same methods.
AnyCheckpoint: TypeAlias = Union[Checkpoint, "RemoteCheckpoint"]


@dataclass(frozen=True, slots=True)
class Source:
    """A checkpoint in `folder`. `id` is its Hub id or the absolute folder, `revision` the Hub's commit or None.

    An id from ModelScope begins with ``modelscope:``. For a streamed source, `folder` holds everything except the
    weights, which `stream` reads over the network; it exists as long as `stream`. `checked` says how each fetched file
    in `folder` was compared with what the Hub states: ``sha256``, ``git`` (the SHA-1 of its blob), ``no-hash``.
    """

    folder: Path
    id: str
    revision: str | None = None
    stream: Stream | None = None
    checked: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def fetched(self) -> dict[str, str]:
        """How each file fetched so far was checked, as in `checked`, streamed shards included."""
        return dict(self.checked) if self.stream is None else {**self.checked, **self.stream.checked}

    def open(self) -> AnyCheckpoint:
        """Opens the checkpoint: reads and checks its headers. Raises CheckpointError, and HubError if it is
        streamed.
        """
        return open_checkpoint(self.folder) if self.stream is None else self.stream.open()


def streamed(stream: Stream) -> Source:
    """The source that reads its weights from `stream`."""
    return Source(stream.folder, stream.listing.id, stream.listing.revision, stream, stream.small_files)
