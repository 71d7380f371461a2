"""Safetensors files that must be refused.

``refused_by_library`` records what the ``safetensors`` library does with the same file: each difference is stated.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Attack:
    content: bytes
    mentions: str
    refused_by_library: bool = True


def file_of(header: Any, data: bytes = b"", padding: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += padding
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(entry_text: bytes, data: bytes = b"0000") -> bytes:
    return file_of(b'{"w":' + entry_text + b"}", data)


GOOD = file_of({"w": entry([1], 0, 4)}, b"0000")

ATTACKS = {
    "empty file": Attack(b"", "too few"),
    "seven bytes": Attack(b"\0" * 7, "too few"),
    "no header": Attack(b"\0" * 8, "does not start with '{'"),
    "header of 2**64-1 bytes": Attack(b"\xff" * 8 + b"{}", "not a safetensors file"),
    "header above 100 MB": Attack((100_000_001).to_bytes(8, "little") + b"{}", "not a safetensors file"),
    "header of 100 MB in a small file": Attack((100_000_000).to_bytes(8, "little") + b"{}", "truncated"),
    "header one byte past the end": Attack(
        b"\x03" + b"\0" * 7 + b"{}", "truncated: the header ends at byte 11, the file at 10"
    ),
    "data cut short": Attack(GOOD[:-1], "truncated"),
    "data too long": Attack(GOOD + b"0", "after its last tensor"),
    "data without tensors": Attack(file_of(b"{}", b"0"), "after its last tensor"),
    "not UTF-8": Attack(file_of(b'{"\xff":0}'), "not UTF-8"),
    "UTF-16": Attack(file_of("{}".encode("utf-16-le")), "not a JSON object"),
    "byte order mark": Attack(file_of(b"\xef\xbb\xbf{}"), "does not start with '{'"),
    "leading space": Attack(file_of(b" {}"), "does not start with '{'", refused_by_library=False),
    "padded with newline": Attack(file_of(b"{}", padding=b"\n"), "padded with spaces", refused_by_library=False),
    "padded with NUL": Attack(file_of(b"{}", padding=b"\0"), "padded with spaces"),
    "a list": Attack(file_of(b"[]"), "does not start with '{'"),
    "two objects": Attack(file_of(b"{}{}"), "not JSON"),
    "unclosed object": Attack(file_of(b'{"w":{}'), "not JSON"),
    "NaN": Attack(one(b'{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}'), "NaN"),
    "nested 100,000 deep": Attack(file_of(b'{"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "objects nested 100,000 deep": Attack(file_of(b'{"w":' * 100_000 + b"0" + b"}" * 100_000), "nested too deeply"),
    "integer of 5,000 digits": Attack(
        one(b'{"dtype":"F32","shape":[' + b"1" * 5000 + b'],"data_offsets":[0,4]}'), "not an integer in range"
    ),
    "unpaired surrogate": Attack(
        file_of(b'{"\\ud800":' + json.dumps(entry([1], 0, 4)).encode() + b"}", b"0000"), "surrogate"
    ),
    "surrogate in metadata": Attack(file_of(b'{"__metadata__":{"a":"\\udfff"}}'), "surrogate"),
    "repeated tensor": Attack(
        file_of(
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"0000",
        ),
        "duplicate key 'w'",
        refused_by_library=False,
    ),
    "repeated tensor, escaped": Attack(
        file_of(
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"\\u0077":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"0000",
        ),
        "duplicate key 'w'",
        refused_by_library=False,
    ),
    "repeated field": Attack(one(b'{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}'), "duplicate key"),
    "repeated metadata": Attack(file_of(b'{"__metadata__":{},"__metadata__":{}}'), "duplicate key"),
    "repeated key in metadata": Attack(
        file_of(b'{"__metadata__":{"a":"b","a":"c"}}'), "duplicate key 'a'", refused_by_library=False
    ),
    "metadata of numbers": Attack(file_of({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata as a list": Attack(file_of({"__metadata__": []}), "__metadata__"),
    "metadata null": Attack(file_of({"__metadata__": None}), "__metadata__", refused_by_library=False),
    "entry is a number": Attack(file_of({"w": 1}, b"0000"), "'w'"),
    "entry as an array": Attack(file_of({"w": ["F32", [1], [0, 4]]}, b"0000"), "'w'", refused_by_library=False),
    "entry without dtype": Attack(one(b'{"shape":[1],"data_offsets":[0,4]}'), "'w'"),
    "entry without shape": Attack(one(b'{"dtype":"F32","data_offsets":[0,4]}'), "'w'"),
    "entry without offsets": Attack(one(b'{"dtype":"F32","shape":[1]}'), "'w'"),
    "entry with a fourth field": Attack(
        file_of({"w": {**entry([1], 0, 4), "x": 0}}, b"0000"),
        "exactly dtype, shape and data_offsets",
        refused_by_library=False,
    ),
    "unknown dtype": Attack(file_of({"w": entry([1], 0, 4, "F31")}, b"0000"), "'F31'"),
    "dtype in lower case": Attack(file_of({"w": entry([1], 0, 4, "f32")}, b"0000"), "'f32'"),
    "dtype is a number": Attack(file_of({"w": entry([1], 0, 4, 32)}, b"0000"), "dtype 32"),
    "dtype is a list": Attack(file_of({"w": entry([1], 0, 4, ["F32"])}, b"0000"), "dtype ['F32']"),
    "complex dtype": Attack(file_of({"w": entry([1], 0, 8, "C64")}, b"0" * 8), "'C64'", refused_by_library=False),
    "four-bit dtype": Attack(file_of({"w": entry([8], 0, 4, "F4")}, b"0" * 4), "'F4'", refused_by_library=False),
    "dtype as an object": Attack(
        one(b'{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}'), "dtype {'F32': None}", refused_by_library=False
    ),
    "dtype of AMD's eight bits": Attack(
        file_of({"w": entry([4], 0, 4, "F8_E4M3FNUZ")}, b"0000"), "'F8_E4M3FNUZ'", refused_by_library=False
    ),
    "shape beyond every float": Attack(one(b'{"dtype":"F32","shape":[1e999],"data_offsets":[0,4]}'), "not a number"),
    "numbers with underscores": Attack(
        one(b'{"dtype":"F32","shape":[1_0],"data_offsets":[0,40]}', b"0" * 40), "not JSON"
    ),
    "numbers in other scripts": Attack(
        one('{"dtype":"F32","shape":[\u0661],"data_offsets":[0,4]}'.encode()), "not JSON"
    ),
    "a comment": Attack(file_of(b"{/**/}"), "not JSON"),
    "a comma too many": Attack(one(b'{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'), "not JSON"),
    "quotes of the other kind": Attack(one(b"{'dtype':'F32'}"), "not JSON"),
    "overlong UTF-8": Attack(file_of(b'{"\xc0\xaf":0}'), "not UTF-8"),
    "a surrogate in UTF-8": Attack(file_of(b'{"\xed\xa0\x80":0}'), "not UTF-8"),
    "name with a bell and a terminal's escape": Attack(file_of({"\a\x1b[2J": entry([2], 0, 4)}, b"0000"), "\\x1b[2J"),
    "ten thousand tensors at one place": Attack(
        file_of({f"w{i}": entry([1], 0, 4) for i in range(10_000)}, b"0000"), "overlaps"
    ),
    "shape is a number": Attack(one(b'{"dtype":"F32","shape":1,"data_offsets":[0,4]}'), "shape"),
    "shape is negative": Attack(file_of({"w": entry([-1], 0, 4)}, b"0000"), "shape"),
    "shape twice negative": Attack(file_of({"w": entry([-1, -1], 0, 4)}, b"0000"), "shape"),
    "shape is minus zero": Attack(one(b'{"dtype":"F32","shape":[-0],"data_offsets":[0,0]}', b""), "-0"),
    "shape is a fraction": Attack(file_of({"w": entry([1.0], 0, 4)}, b"0000"), "shape"),
    "shape is an exponent": Attack(one(b'{"dtype":"F32","shape":[1e0],"data_offsets":[0,4]}'), "shape"),
    "shape is true": Attack(file_of({"w": entry([True], 0, 4)}, b"0000"), "shape"),
    "shape is a string": Attack(file_of({"w": entry(["1"], 0, 4)}, b"0000"), "shape"),
    "shape overflows 64 bits": Attack(file_of({"w": entry([2**62, 4], 0, 0)}), "overflows"),
    "shape wraps to its length": Attack(file_of({"w": entry([2**62 + 1], 0, 4)}, b"0000"), "overflows"),
    "shape overflows before a zero": Attack(file_of({"w": entry([2**63, 2**63, 0], 0, 0)}), "overflows"),
    "shape overflows after a zero": Attack(
        file_of({"w": entry([0, 2**63, 2**63], 0, 0)}), "overflows", refused_by_library=False
    ),
    "rank 33": Attack(file_of({"w": entry([1] * 33, 0, 4)}, b"0000"), "33 dimensions", refused_by_library=False),
    "shape smaller than its bytes": Attack(file_of({"w": entry([1], 0, 8)}, b"0" * 8), "does not fill its 8 bytes"),
    "shape larger than its bytes": Attack(file_of({"w": entry([2], 0, 4)}, b"0" * 4), "does not fill its 4 bytes"),
    "offsets reversed": Attack(file_of({"w": entry([0], 4, 0)}, b"0000"), "begin and end"),
    "offsets negative": Attack(file_of({"w": entry([1], -4, 0)}, b"0000"), "data_offsets"),
    "offsets true": Attack(file_of({"w": entry([1], False, 4)}, b"0000"), "data_offsets"),
    "three offsets": Attack(one(b'{"dtype":"F32","shape":[1],"data_offsets":[0,4,4]}'), "begin and end"),
    "offset of 2**64": Attack(file_of({"w": entry([1], 2**64, 2**64 + 4)}, b"0000"), "'w'"),
    "offsets beyond the file": Attack(file_of({"w": entry([1], 2**60, 2**60 + 4)}, b"0000"), "hole"),
    "hole at the start": Attack(file_of({"w": entry([1], 4, 8)}, b"0" * 8), "hole"),
    "hole between": Attack(file_of({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"0" * 12), "'b' leaves a hole"),
    "overlap": Attack(file_of({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, b"0" * 12), "'b' overlaps"),
    "two names for the same bytes": Attack(
        file_of({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, b"0000"), "overlaps"
    ),
    "empty tensor inside another": Attack(file_of({"a": entry([1], 0, 4), "b": entry([0], 2, 2)}, b"0000"), "overlaps"),
    "name with a line feed": Attack(file_of({"a\nb": entry([2], 0, 4)}, b"0000"), "a\\nb"),
    "last tensor past the end": Attack(file_of({"w": entry([1], 0, 4)}, b""), "truncated"),
    "a git-lfs pointer": Attack(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "not a safetensors"
    ),
    "an HTML page": Attack(b"<!DOCTYPE html><html><body>404</body></html>", "not a safetensors"),
}
