"""Few open files for many shards."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from msport.checkpoint import Header, ShardWriter, safetensors
from msport.checkpoint.dtypes import INT32
from msport.checkpoint.file_pool import FilePool
from msport.errors import CheckpointError

from .families import open_files


@pytest.fixture
def headers(tmp_path: Path) -> dict[Path, Header]:
    headers = {}
    for number in range(10):
        path = tmp_path / f"{number}.safetensors"
        with ShardWriter(path, safetensors.plan_layout([("w", INT32, (1,))])) as writer:
            writer.write("w", 0, np.array([number], np.int32))
        headers[path] = safetensors.read_header(path)
    return headers


def test_no_more_files_are_open_than_allowed(headers: dict[Path, Header], tmp_path: Path) -> None:
    pool = FilePool(headers, 3)
    for number, path in enumerate(headers):
        with pool.borrow(path) as file:
            assert file.read("w") == [number]
        assert open_files(tmp_path) == min(number + 1, 3)
    pool.close()
    assert open_files(tmp_path) == 0


def test_a_file_in_use_is_never_closed(headers: dict[Path, Header], tmp_path: Path) -> None:
    pool = FilePool(headers, 1)
    first, *others = headers
    with pool.borrow(first) as file:
        for path in others:
            with pool.borrow(path):
                assert open_files(tmp_path) == 2
        assert file.read("w") == [0]
    assert open_files(tmp_path) == 1


def test_the_file_used_longest_ago_is_closed_first(headers: dict[Path, Header]) -> None:
    pool = FilePool(headers, 2)
    a, b, c, *_ = headers
    with pool.borrow(a) as kept:
        pass
    for path in (b, a, c):
        with pool.borrow(path):
            pass
    with pool.borrow(a) as again:
        assert again is kept


def test_threads_share_a_small_pool(headers: dict[Path, Header], tmp_path: Path) -> None:
    pool = FilePool(headers, 2)
    paths = list(headers)

    def read(seed: int) -> bool:
        number = random.Random(seed).randrange(len(paths))
        with pool.borrow(paths[number]) as file:
            return bool(file.read("w") == [number])

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(read, range(2000)))
    assert open_files(tmp_path) <= 2


def test_a_shard_that_changed_since_it_was_planned_is_refused(headers: dict[Path, Header]) -> None:
    pool = FilePool(headers, 2)
    path = next(iter(headers))
    os.utime(path, ns=(0, 0))
    for _ in range(2):
        with pytest.raises(CheckpointError, match="changed after its header was read"), pool.borrow(path):
            pass
