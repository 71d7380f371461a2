"""HTTP responses: checks of a response before it is used, and its body, read as it arrives."""

from __future__ import annotations

import re
import time
from typing import Any

from msport.errors import HubError, parameter, quote
from msport.hub.limits import Network, TransientError
from msport.hub.listing import RemoteFile, hexadecimal

_CHUNK = 1 << 18
_LENGTH = re.compile(r"\d{1,19}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})", re.ASCII)


def check_linked(file: RemoteFile, response: Any) -> None:
    """Refuse a file if Hugging Face's redirect to it states another SHA-256 than its listing."""
    linked = hexadecimal(response.headers.get("X-Linked-ETag", "").removeprefix("W/").strip('"'), 64)
    if linked and file.sha256 and linked != file.sha256:
        raise changed(str(file), f"had SHA-256 {file.sha256} and now has {linked}")


def check_encoding(response: Any) -> None:
    """Refuse a compressed body: an uncompressed one was requested, and a few bytes could expand to many."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity":
        raise TransientError(f"the server compressed its answer ({quote(encoding)})")


def check_range(file: RemoteFile, response: Any, begin: int, end: int) -> None:
    """Check that the body holds bytes ``[begin, end)`` of the listed file.

    ModelScope answers a range with status 200 and a correct ``Content-Range``, so this header, not the status, says
    what follows (https://github.com/modelscope/modelscope_hub/issues/50).
    """
    headers, nbytes = response.headers, end - begin
    check_encoding(response)
    length = int(headers["Content-Length"]) if _LENGTH.fullmatch(headers.get("Content-Length", "")) else nbytes
    if "Content-Range" not in headers:
        if response.status_code == 206:
            raise TransientError("the server sent a range without saying which")
        if nbytes != file.nbytes:
            raise TransientError(
                f"the server sent the whole file instead of a range ({parameter('keep_source')} needs no ranges)"
            )
        if length != file.nbytes:
            raise changed(str(file), f"had {file.nbytes} bytes and now has {length}")
        return
    match = _CONTENT_RANGE.fullmatch(headers["Content-Range"])
    if match is None:
        raise TransientError(f"the server sent the range {quote(headers['Content-Range'])}")
    first, last, total = (int(digits) for digits in match.groups())
    if total != file.nbytes:
        raise changed(str(file), f"had {file.nbytes} bytes and now has {total}")
    if (first, last + 1) != (begin, end) or length != nbytes:
        raise TransientError(f"the server sent bytes {first} to {last} ({length}) instead of {begin} to {end - 1}")


def changed(what: str, how: str) -> HubError:
    """The error about a file that changed; `how` says in what way."""
    return HubError(
        f"{what}: the source changed while it was read: it {how}; start again, if need be with {parameter('restart')}"
    )


class Body:
    """The body of `response`. A connection slower than `min_rate` bytes per second fails.

    The rate is measured over each period of `stall_timeout` seconds.
    """

    def __init__(self, response: Any, network: Network) -> None:
        # `read` would wait for all requested bytes; this returns those that are there. urllib3 before 2.1 lacks it, and
        # cannot reuse a connection after http.client's.
        self._read = getattr(response.raw, "read1", None) or response.raw._fp.read1
        self._network = network
        self._begin = self._since = time.monotonic()
        self._nbytes = 0

    def fill(self, buffer: memoryview) -> int:
        """Put the next bytes into `buffer` and return their number. Raises TransientError at the end."""
        data = self._next(min(len(buffer), _CHUNK))
        if not data:
            raise TransientError("the connection was cut")
        buffer[: len(data)] = data
        return len(data)

    def whole(self, limit: int) -> bytes:
        """The whole document. Raises ValueError above `limit` bytes."""
        data = bytearray()
        while part := self._next(_CHUNK):
            data += part
            if len(data) > limit:
                raise ValueError(f"larger than {limit} bytes")
            if time.monotonic() - self._begin > self._network.patience:
                raise TransientError(f"not all of the answer arrived within {self._network.patience:g} s")
        return bytes(data)

    def _next(self, nbytes: int) -> bytes:
        data: bytes = self._read(nbytes)
        now = time.monotonic()
        self._nbytes += len(data)
        seconds = now - self._since
        if seconds >= self._network.stall_timeout:
            if data and self._nbytes < self._network.min_rate * seconds:
                raise TransientError(f"only {self._nbytes} bytes arrived in {seconds:.0f} s")
            self._since, self._nbytes = now, 0
        return data
