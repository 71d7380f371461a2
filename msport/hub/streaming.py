"""The beginning of a streamed conversion: the small files, fetched and checked, and a connection for the rest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from msport.hub.listing import Checker, Listing, RemoteFile, warn_of_unchecked
from msport.hub.network import Network
from msport.hub.remote import Stream
from msport.hub.source import Source
from msport.hub.transport import Explain, Transport


def open_stream(listing: Listing, network: Network, explain: Explain) -> Source:
    """The source `listing`, of which all but the weights is fetched into a temporary folder.

    Raises HubError, and OSError if the folder cannot be written.
    """
    warn_of_unchecked(listing, listing.files)
    transport = Transport(listing.endpoint, listing.credentials, network, explain)
    root = Path(tempfile.mkdtemp(prefix="msport-"))
    try:
        # Named after the model, so that messages about a file in it say which model that is.
        folder = root.joinpath(*listing.id.rpartition(":")[2].split("/"))
        folder.mkdir(parents=True)
        small = [file for file in listing.files if not file.is_weights]
        kinds = transport.each(lambda file: _fetch(transport, file, folder), small)
    except BaseException:
        transport.close()
        shutil.rmtree(root, ignore_errors=True)
        raise
    checked = {file.name: kind for file, kind in zip(small, kinds, strict=True)}
    return Source(folder, listing.id, listing.revision, Stream(listing, transport, network, root, folder), checked)


def _fetch(transport: Transport, file: RemoteFile, folder: Path) -> str:
    data = bytearray(file.nbytes)
    transport.read(file, 0, memoryview(data))
    checker = Checker(file)
    checker.update(data)
    kind = checker.finish()
    (folder / file.name).write_bytes(data)
    return kind
