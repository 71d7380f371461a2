from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from msport.checkpoint import Header, TensorInfo
from msport.checkpoint.dtypes import UINT8
from msport.hub.read_ahead import ReadAhead

KB = 1024
WINDOW = 1024 * KB
DATA = random.Random(0).randbytes(8192 * KB)
# Three tiny neighbours, one of middling size, a tiny one, a large one.
SIZES = (100, 200, 300, 600 * KB, 100, 7000 * KB)


class Remote:
    """A file whose ranges are counted."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.failures = 0

    def fetch(self, begin: int, buffer: memoryview) -> None:
        if self.failures:
            self.failures -= 1
            raise ValueError("no")
        self.ranges.append((begin, begin + len(buffer)))
        buffer[:] = DATA[begin : begin + len(buffer)]


def layout() -> tuple[ReadAhead, list[tuple[int, int]]]:
    position, tensors, places = 8, {}, []
    for number, size in enumerate(SIZES):
        places.append((position, position + size))
        tensors[str(number)] = TensorInfo(str(number), UINT8, (size,), (places[-1],))
        position += size
    header = Header(Path("f"), tensors, {}, 8, position, "")
    return ReadAhead({"f": header}, WINDOW), places


def read(ahead: ReadAhead, remote: Remote, begin: int, end: int) -> None:
    buffer = bytearray(end - begin)
    ahead.read("f", begin, memoryview(buffer), remote.fetch)
    assert buffer == DATA[begin:end]


def test_tiny_neighbours_are_fetched_together() -> None:
    ahead, places = layout()
    remote = Remote()
    for begin, end in (places[1], places[0], places[2]):
        read(ahead, remote, begin, end)
    assert remote.ranges == [(places[0][0], places[2][1])]


def test_a_tensor_read_bit_by_bit_is_fetched_window_by_window() -> None:
    ahead, places = layout()
    remote = Remote()
    begin, end = places[5]
    for start in range(begin, end, 100 * KB):
        read(ahead, remote, start, min(start + 100 * KB, end))
    assert remote.ranges == [(start, min(start + WINDOW, end)) for start in range(begin, end, WINDOW)]


def test_a_large_read_goes_past_the_pieces_and_takes_what_is_there() -> None:
    ahead, places = layout()
    remote = Remote()
    begin, end = places[5]
    read(ahead, remote, begin, begin + 10)
    read(ahead, remote, begin + 10, end)
    assert remote.ranges == [(begin, begin + WINDOW), (begin + WINDOW, end)]


def test_what_has_been_used_is_fetched_again() -> None:
    ahead, places = layout()
    remote = Remote()
    for _ in range(2):
        read(ahead, remote, *places[3])
    assert remote.ranges == [places[3]] * 2


def test_a_failure_is_not_kept() -> None:
    ahead, places = layout()
    remote = Remote()
    remote.failures = 1
    with pytest.raises(ValueError, match="no"):
        read(ahead, remote, *places[0])
    read(ahead, remote, *places[0])
    assert len(remote.ranges) == 1


def test_several_threads_share_what_is_fetched() -> None:
    ahead, places = layout()
    remote = Remote()
    begin, end = places[3]
    barrier = threading.Barrier(4)

    def read_quarter(number: int) -> None:
        barrier.wait()
        size = (end - begin) // 4
        read(ahead, remote, begin + number * size, begin + (number + 1) * size)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read_quarter, range(4)))
    assert remote.ranges == [(begin, end)]


def test_however_it_is_read_the_bytes_are_right() -> None:
    ahead, places = layout()
    remote, chance = Remote(), random.Random(1)
    for _ in range(300):
        begin, end = chance.choice(places)
        start = chance.randrange(begin, end)
        read(ahead, remote, start, chance.randint(start, min(end, start + chance.choice((10, WINDOW, 4 * WINDOW)))))
    assert sum(piece.end - piece.begin for piece in ahead._pieces.values()) <= 8 * WINDOW
