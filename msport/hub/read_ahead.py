"""Serves small reads from larger fetches.

A conversion reads some tensors in small pieces: a tile, an expert's scales, a norm of a few kilobytes. A separate
request for each would cost a round trip. So the bytes after a piece are fetched with it and kept until they are used.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable

from msport.checkpoint import Header

# Neighbouring tensors below this size are fetched together; larger ones may be needed at different times.
_TINY_NBYTES = 1 << 18
# Pieces in memory at most, over all files; used pieces are dropped first.
_KEPT_PIECES = 8

Fetch = Callable[[int, memoryview], None]


class _Piece:
    """Bytes ``[begin, end)`` of a file; the thread that first takes `lock` fetches them."""

    def __init__(self, begin: int, end: int) -> None:
        self.begin = begin
        self.end = end
        self.unused = end - begin
        self.lock = threading.Lock()
        self.data: bytearray | None = None


class ReadAhead:
    """Reads a checkpoint's files; reads below `nbytes` bytes are served from pieces fetched ahead.

    Safe to use from several threads; a piece that two of them need is fetched once.
    """

    def __init__(self, headers: dict[str, Header], nbytes: int) -> None:
        self._nbytes = nbytes
        self._units = {name: _units(header, nbytes) for name, header in headers.items()}
        self._pieces: OrderedDict[tuple[str, int], _Piece] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, file: str, begin: int, buffer: memoryview, fetch: Fetch) -> None:
        """Fill `buffer` with the bytes of `file` from `begin` on; calls `fetch` if they are not in memory."""
        while buffer:
            piece = self._piece(file, begin, len(buffer))
            if piece is None:
                fetch(begin, buffer)
                return
            data = self._data(file, piece, fetch)
            part = memoryview(data)[begin - piece.begin : begin - piece.begin + len(buffer)]
            buffer[: len(part)] = part
            self._use(file, piece, len(part))
            begin, buffer = begin + len(part), buffer[len(part) :]

    def _piece(self, file: str, begin: int, nbytes: int) -> _Piece | None:
        """The piece that holds byte `begin`: a new one for a small read, None for a large one."""
        with self._lock:
            for key, piece in self._pieces.items():
                if key[0] == file and piece.begin <= begin < piece.end:
                    self._pieces.move_to_end(key)
                    return piece
            if nbytes >= self._nbytes:
                return None
            start, end = self._extent(file, begin)
            piece = self._pieces[file, start] = _Piece(start, end)
            while len(self._pieces) > _KEPT_PIECES:
                self._pieces.popitem(last=False)
            return piece

    def _extent(self, file: str, begin: int) -> tuple[int, int]:
        starts, ends = self._units[file]
        unit = bisect_right(starts, begin) - 1
        if ends[unit] - starts[unit] <= self._nbytes:
            return starts[unit], ends[unit]
        return begin, min(begin + self._nbytes, ends[unit])

    def _data(self, file: str, piece: _Piece, fetch: Fetch) -> bytearray:
        with piece.lock:
            if piece.data is None:
                data = bytearray(piece.end - piece.begin)
                try:
                    fetch(piece.begin, memoryview(data))
                except BaseException:
                    with self._lock:
                        self._pieces.pop((file, piece.begin), None)
                    raise
                piece.data = data
            return piece.data

    def _use(self, file: str, piece: _Piece, nbytes: int) -> None:
        with self._lock:
            piece.unused -= nbytes
            if piece.unused <= 0 and self._pieces.get((file, piece.begin)) is piece:
                del self._pieces[file, piece.begin]


def _units(header: Header, nbytes: int) -> tuple[list[int], list[int]]:
    """Begins and ends of what may be fetched together: one tensor, or consecutive small ones of at most `nbytes`
    bytes.
    """
    starts: list[int] = []
    ends: list[int] = []
    extendable = False
    for tensor in header.tensors.values():
        ((begin, end),) = tensor.extents
        tiny = end - begin <= _TINY_NBYTES
        if extendable and tiny and end - starts[-1] <= nbytes:
            ends[-1] = end
        else:
            starts.append(begin)
            ends.append(end)
        extendable = tiny
    return starts, ends
