"""A checkpoint that is read over the network: first small files, then headers, then the requested ranges."""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from numpy import uint8

from msport.checkpoint import Header, safetensors
from msport.checkpoint.index import INDEX_NAME, SINGLE_NAMES, read_headers, read_weight_map
from msport.checkpoint.reader import Array
from msport.errors import CheckpointError, quote
from msport.hub.limits import Network
from msport.hub.listing import Checker, Listing, RemoteFile, warn_of_unchecked
from msport.hub.read_ahead import ReadAhead
from msport.hub.transport import Transport

# Most headers are smaller, so opening a shard takes one request.
_HEADER_GUESS = 1 << 17


class Stream:
    """A model on a Hub whose weights are read when needed; its small files are in `folder`.

    `folder` is temporary: it is removed with `root` and the object, at the latest when the process ends. `small_files`
    says how each small file was checked; `checks` hash what is read of each shard.
    """

    def __init__(
        self,
        listing: Listing,
        transport: Transport,
        network: Network,
        root: Path,
        folder: Path,
        small_files: Mapping[str, str],
    ) -> None:
        self.listing = listing
        self.transport = transport
        self.network = network
        self.folder = folder
        self.small_files = small_files
        self.checks = {file.name: InOrder(file) for file in listing.files if file.is_weights}
        weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)

    @property
    def checked(self) -> dict[str, str]:
        """How each shard was checked: ``sha256`` if all of it was read in order, else ``length``."""
        return {name: check.result for name, check in self.checks.items() if check.begun}

    def open(self) -> RemoteCheckpoint:
        """Opens the checkpoint: fetches and checks its headers. Raises CheckpointError and HubError."""
        return RemoteCheckpoint(self)


def open_stream(listing: Listing, network: Network) -> Stream:
    """The stream for `listing`. Fetches everything except the weights into a temporary folder.

    Raises HubError, and OSError if the folder cannot be written.
    """
    warn_of_unchecked(listing, listing.files)
    transport = Transport(listing.hub, network)
    root = Path(tempfile.mkdtemp(prefix="msport-"))
    try:
        # Named after the model, so that messages about its files name the model.
        folder = root.joinpath(*listing.id.rpartition(":")[2].split("/"))
        folder.mkdir(parents=True)
        small = [file for file in listing.files if not file.is_weights]
        kinds = transport.each(lambda file: _fetch_small(transport, file, folder), small)
    except BaseException:
        transport.close()
        shutil.rmtree(root, ignore_errors=True)
        raise
    checked = {file.name: kind for file, kind in zip(small, kinds, strict=True)}
    return Stream(listing, transport, network, root, folder, checked)


def _fetch_small(transport: Transport, file: RemoteFile, folder: Path) -> str:
    data = bytearray(file.nbytes)
    transport.read(file, 0, memoryview(data))
    checker = Checker(file)
    checker.update(data)
    kind = checker.finish()
    (folder / file.name).write_bytes(data)
    return kind


class RemoteCheckpoint:
    """All tensors of a streamed model, with the methods of `checkpoint.Checkpoint` that converting needs; thread-safe.

    The paths in `files` and `headers` are the names that the shards would have in `folder`; these files do not exist.
    """

    def __init__(self, stream: Stream) -> None:
        self.folder = stream.folder
        self._stream = stream
        self._files = {file.name: file for file in stream.listing.files if file.is_weights}
        self._fetched = self._fetch_headers()
        self.headers = read_headers(self.folder, self._read_header, self._has)
        self.tensors = {name: info for header in self.headers.values() for name, info in header.tensors.items()}
        self.files = {name: path for path, header in self.headers.items() for name in header.tensors}
        self._fetched.clear()
        by_name = {path.name: header for path, header in self.headers.items()}
        self._read_ahead = ReadAhead(by_name, stream.network.window_nbytes)

    def read_into(self, name: str, offset: int, buffer: Array) -> None:
        """Fill `buffer` (C-contiguous, any dtype) with a tensor's bytes from byte `offset` on.

        Raises CheckpointError if there is no such tensor, IndexError if it ends before the buffer, and HubError.
        """
        if not buffer.flags.c_contiguous:
            raise ValueError("only C-contiguous arrays can be filled")
        if name not in self.tensors:
            raise CheckpointError(f"{self.folder}: holds no tensor {quote(name)}")
        tensor, file = self.tensors[name], self._files[self.files[name].name]
        data = buffer.reshape(-1).view(uint8).data
        if not 0 <= offset <= offset + len(data) <= tensor.nbytes:
            raise IndexError(f"bytes {offset} to {offset + len(data)} of tensor {quote(name)}, of {tensor.nbytes}")
        for start, stop in tensor.locate(offset, offset + len(data)):
            self._read_ahead.read(file.name, start, data[: stop - start], lambda at, part: self._fetch(file, at, part))
            data = data[stop - start :]

    def close(self) -> None:
        """Close every connection. Running reads in other threads end with HubError."""
        self._stream.transport.close()

    abandon = close

    def __enter__(self) -> RemoteCheckpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fetch(self, file: RemoteFile, begin: int, buffer: memoryview) -> None:
        self._stream.transport.read(file, begin, buffer)
        self._stream.checks[file.name].update(begin, buffer)

    def _fetch_headers(self) -> dict[str, tuple[bytes, bytes]]:
        """The prefix and the JSON of each shard, as far as they exist; several shards at the same time."""
        index = self.folder / INDEX_NAME
        wanted = set(read_weight_map(index).values()) if index.is_file() else set(SINGLE_NAMES)
        files = [file for file in self._files.values() if file.name in wanted]
        headers = self._stream.transport.each(self._fetch_header, files)
        return {file.name: header for file, header in zip(files, headers, strict=True)}

    def _fetch_header(self, file: RemoteFile) -> tuple[bytes, bytes]:
        start = bytearray(min(_HEADER_GUESS, file.nbytes))
        self._stream.transport.read(file, 0, memoryview(start))
        prefix = bytes(start[: safetensors.PREFIX])
        length = safetensors.header_length(self.folder / file.name, prefix, file.nbytes)
        text = start[safetensors.PREFIX : safetensors.PREFIX + length]
        if len(text) < length:
            rest = bytearray(length - len(text))
            self._stream.transport.read(file, len(start), memoryview(rest))
            text += rest
        self._stream.checks[file.name].update(0, memoryview(prefix + text))
        return prefix, bytes(text)

    def _read_header(self, path: Path) -> Header:
        if path.name not in self._fetched:
            raise CheckpointError(f"{path}: no such file in {self._stream.listing.id}; choose another revision")
        file = self._files[path.name]
        prefix, text = self._fetched[path.name]
        length = int.from_bytes(prefix, "little")
        return safetensors.parse_header(path, text, length, file.nbytes, file.version or f"{file.nbytes} bytes")

    def _has(self, path: Path) -> bool:
        return path.name in self._files or path.is_file()


class InOrder:
    """Checks a file whose bytes are read in order, from the first to the last; gives up at the first gap."""

    def __init__(self, file: RemoteFile) -> None:
        self._checker = Checker(file)
        self._nbytes = file.nbytes
        self._position = 0
        self._lock = threading.Lock()
        self.result = "length" if file.check != "no-hash" else file.check

    @property
    def begun(self) -> bool:
        """Whether anything of the file was read."""
        return self._position > 0

    def update(self, begin: int, data: memoryview) -> None:
        """Hashes the bytes read from `begin` on. Raises HubError if the file is complete and its hash differs from
        the Hub's.
        """
        with self._lock:
            if not begin <= self._position < begin + len(data):
                return
            self._checker.update(data[self._position - begin :])
            self._position = begin + len(data)
            if self._position == self._nbytes:
                self.result = self._checker.finish()
