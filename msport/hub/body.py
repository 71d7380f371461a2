"""The body of an answer, read as it arrives: what comes too slowly, or is more than it should be, is not waited for."""

from __future__ import annotations

import time
from typing import Any

from msport.hub.network import Network, TransientError

_CHUNK = 1 << 18


class Body:
    """What `response` sends; a connection that brings fewer than `min_rate` bytes a second has failed.

    That is measured over every `stall_timeout`, so that a slow link is only ever a slow one.
    """

    def __init__(self, response: Any, network: Network) -> None:
        # `read` would wait for all that it was asked for, this gives what is there. urllib3 before 2.1 lacks it,
        # and does not use a connection again after http.client's.
        self._read = getattr(response.raw, "read1", None) or response.raw._fp.read1
        self._network = network
        self._begin = self._since = time.monotonic()
        self._nbytes = 0

    def fill(self, buffer: memoryview) -> int:
        """Put what arrives next into `buffer`; how many bytes that were. Raises TransientError at the end."""
        data = self._next(min(len(buffer), _CHUNK))
        if not data:
            raise TransientError("the connection was cut")
        buffer[: len(data)] = data
        return len(data)

    def whole(self, limit: int) -> bytes:
        """All of a document; ValueError if that is more than `limit` bytes."""
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
