"""Index files that must be refused, beside good shards ``a.safetensors`` (tensors x, y) and ``b.ckpt`` (z)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Attack:
    content: bytes
    mentions: str


SHARDS = {"a.safetensors": ["x", "y"], "b.ckpt": ["z"]}
WEIGHT_MAP = {name: file for file, names in SHARDS.items() for name in names}


def index_of(weight_map: Any) -> bytes:
    return json.dumps({"metadata": {"total_size": 12}, "weight_map": weight_map}).encode()


def placing(file: Any) -> bytes:
    return index_of({**WEIGHT_MAP, "z": file})


GOOD = index_of(WEIGHT_MAP)
NO_MAP = "has no weight_map"
NO_PLAIN_NAME = "not plain file names"

ATTACKS = {
    "empty file": Attack(b"", "not JSON"),
    "cut short": Attack(GOOD[:-1], "not JSON"),
    "not UTF-8": Attack(GOOD.replace(b"x", b"\xff", 1), "not UTF-8"),
    "UTF-16": Attack(GOOD.decode().encode("utf-16"), "not UTF-8"),
    "byte order mark": Attack(b"\xef\xbb\xbf" + GOOD, "not JSON"),
    "two documents": Attack(GOOD * 2, "not JSON"),
    "a list": Attack(b"[]", NO_MAP),
    "a number": Attack(b"1", NO_MAP),
    "no map": Attack(b"{}", NO_MAP),
    "map is null": Attack(index_of(None), NO_MAP),
    "map is a list": Attack(index_of(list(WEIGHT_MAP)), NO_MAP),
    "map of numbers": Attack(placing(1), NO_MAP),
    "map of lists": Attack(placing(["b.ckpt"]), NO_MAP),
    "map of objects": Attack(placing({"file": "b.ckpt"}), NO_MAP),
    "map is empty": Attack(index_of({}), "is empty"),
    "two maps": Attack(b'{"weight_map":{},"weight_map":{"x":"a.safetensors"}}', "duplicate key 'weight_map'"),
    "tensor twice": Attack(b'{"weight_map":{"x":"a.safetensors","x":"b.ckpt"}}', "duplicate key 'x'"),
    "NaN": Attack(b'{"metadata":{"total_size":NaN},' + GOOD[GOOD.index(b'"weight_map"') :], "NaN is not JSON"),
    "a size beyond every float": Attack(
        b'{"metadata":{"total_size":1e999},' + GOOD[GOOD.index(b'"weight_map"') :], "not a number in range"
    ),
    "nested 100,000 deep": Attack(b'{"weight_map":' * 100_000, "nested too deeply"),
    "unpaired surrogate": Attack(placing("\ud800.ckpt"), "surrogate"),
    "the folder above": Attack(placing("../b.ckpt"), NO_PLAIN_NAME),
    "an absolute path": Attack(placing("/etc/model.ckpt"), NO_PLAIN_NAME),
    "a folder below": Attack(placing("original/model.ckpt"), NO_PLAIN_NAME),
    "a folder of Windows": Attack(placing("..\\b.ckpt"), NO_PLAIN_NAME),
    "a drive of Windows": Attack(placing("c:b.ckpt"), NO_PLAIN_NAME),
    "a hidden file": Attack(placing(".b.ckpt"), NO_PLAIN_NAME),
    "the folder itself": Attack(placing("."), NO_PLAIN_NAME),
    "no name": Attack(placing(""), NO_PLAIN_NAME),
    "a suffix alone": Attack(placing(".ckpt"), NO_PLAIN_NAME),
    "no checkpoint": Attack(placing("pytorch_model.bin"), NO_PLAIN_NAME),
    "a name with NUL": Attack(placing("b\0.ckpt"), NO_PLAIN_NAME),
    "a name with a line feed": Attack(placing("b\n.ckpt"), NO_PLAIN_NAME),
    "a name with a terminal's escape": Attack(placing("b\x1b[2J.ckpt"), NO_PLAIN_NAME),
    "a name written from right to left": Attack(placing("b\u202etpkc.ckpt"), NO_PLAIN_NAME),
    "a name of 300 characters": Attack(placing("b" * 300 + ".ckpt"), NO_PLAIN_NAME),
    "a name of 300 bytes": Attack(placing("é" * 150 + ".ckpt"), NO_PLAIN_NAME),
    "a shard that is not there": Attack(placing("c.ckpt"), "c.ckpt: no such file"),
    "a thousand shards that are not there": Attack(
        index_of({f"w{i}": f"{i}.safetensors" for i in range(1000)}), "992 more problems"
    ),
    "more shards than any model has": Attack(
        index_of({f"w{i}": f"{i}.safetensors" for i in range(10_001)}), "names 10001 files (at most 10000)"
    ),
    "a thousand tensors that are not there": Attack(
        index_of({**WEIGHT_MAP, **{f"w{i}": "b.ckpt" for i in range(1000)}}), "and 992 more"
    ),
    "the other shard": Attack(placing("a.safetensors"), "lacks what the index places there"),
    "a tensor too few": Attack(index_of({"x": "a.safetensors", "z": "b.ckpt"}), "does not place there"),
    "a shard too few": Attack(index_of({"x": "a.safetensors"}), "does not place there"),
    "the index as its own shard": Attack(placing("model.safetensors.index.json"), NO_PLAIN_NAME),
}
